"""Assessment of a window: labels that count, estimates, findings and recommendation in a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cv_factory.config.monitoring import MonitoringPipelineConfig, ReportConfig
from cv_factory.data.image_manifest import STRING
from cv_factory.inference.reference import Reference
from cv_factory.monitoring import estimators
from cv_factory.monitoring.detectors import run_detectors
from cv_factory.monitoring.estimator_errors import expected_error
from cv_factory.monitoring.evidently_pages import draw_evidently_pages
from cv_factory.monitoring.finding import Finding
from cv_factory.monitoring.labeled_accuracy import estimate_accuracy
from cv_factory.monitoring.labels import MODEL_SOURCE, Labels, describe_labels
from cv_factory.monitoring.report import AccuracyEstimate, Baseline, MonitoringReport, recommend
from cv_factory.monitoring.timeline import (
    compute_coverage,
    compute_means,
    compute_timeline,
    format_time,
)
from cv_factory.monitoring.window import Window
from cv_factory.reporting.numbers import format_count


@dataclass(frozen=True)
class Subject:
    """What is assessed.

    Attributes:
        model_name: The registered model.
        version: Number of the version.
        source: Description of what the window was read from.
        has_predecessor: Whether a rollback has a version to go back to.
        remarks: What a reader should know of how it was read.
    """

    model_name: str
    version: int
    source: str
    has_predecessor: bool
    remarks: tuple[str, ...] = ()


def assess(
    window: Window,
    reference: Reference | None,
    labels: Labels,
    subject: Subject,
    config: MonitoringPipelineConfig,
    now: datetime,
) -> MonitoringReport:
    """Return the report of a window.

    Args:
        window: Of one version's predictions, in order of time, joined with ``labels``.
        reference: Of that version; None if it has none, so that nothing can be found.
        labels: Of the model.
        subject: What the window is of.
        config: Which labels count, the detectors' settings, and what may act.
        now: Time of the report.
    """
    if reference is not None and not window.features.shape[1]:
        reference = _without_features(reference)
    window, n_left_out = _leave_out_not_finite(window)
    remarks = (*subject.remarks, *_describe_window(window, labels, n_left_out))
    span = _measure_span(window)
    # A window may take half of all memory: no two of them are kept, or more of one than is needed.
    window = _forget_names(select_trusted_labels(window, blind_only=config.labels.blind_only))
    findings = run_detectors(reference, window, config.detectors)
    measured = estimate_accuracy(window, labels.frames) if labels.frames else None
    window = window.distinct()
    estimates = estimate_accuracies(window, reference)
    estimator = estimates[0].estimator if estimates else None
    return MonitoringReport(
        model_name=subject.model_name,
        version=subject.version,
        created=now.isoformat(timespec="seconds"),
        source=subject.source,
        is_live=config.window.is_live,
        **span,
        n_distinct=len(window),
        n_labels=int(window.has_label.sum()),
        findings=tuple(findings),
        estimates=estimates,
        recommendation=recommend(
            findings,
            config.report.act_on,
            config.report.act_at_evidence,
            has_predecessor=subject.has_predecessor,
        ),
        labeled_accuracy=measured,
        baseline=_baseline(reference),
        timeline=compute_timeline(window, estimator, reference.validation if reference else None),
        remarks=remarks,
        evidently_pages=_draw_evidently_pages(findings, window, reference, config.report),
    )


def _measure_span(window: Window) -> dict[str, Any]:
    """Return the fields of a report that describe the window as it was read."""
    times = window.rows["time"].agg(["min", "max"])
    return {
        "start": format_time(times["min"]),
        "end": format_time(times["max"]),
        "n_predictions": len(window),
        "n_refused": window.n_refused,
        "class_names": window.class_names,
        "coverage": compute_coverage(window),
    }


def _forget_names(window: Window) -> Window:
    """Return a window without the texts that no detector looks at."""
    nothing = pd.array(pa.nulls(len(window), pa.large_string()), dtype=STRING)
    return replace(window, rows=window.rows.assign(id=nothing, request_id=nothing, key=nothing))


def _leave_out_not_finite(window: Window) -> tuple[Window, int]:
    """Return the predictions whose outputs are finite, and how many others there are.

    NaN throughout are features that were not logged.
    """
    is_finite = np.asarray(np.isfinite(window.probabilities).all(axis=1))
    is_finite &= np.isfinite(window.features).all(axis=1) | np.isnan(window.features).all(axis=1)
    n = int((~is_finite).sum())
    return (window.select(is_finite) if n else window), n


def _describe_window(window: Window, labels: Labels, n_left_out: int) -> list[str]:
    """Return what is odd about the window and its labels, in sentences."""
    described, remarks = describe_labels(window, labels), []
    if len(window) and not window.features.shape[1]:
        remarks.append("The source stores no features, so that drift of them cannot be seen.")
    if n_left_out:
        remarks.append(
            f"{format_count(n_left_out, 'prediction')} left out: probabilities or features are not "
            "finite numbers. Test the model on such images."
        )
    if window.n_lost:
        remarks.append(
            f"{window.n_lost:,} predictions were lost before they were stored: their files were "
            "pruned (serving.log.prediction_files), or the queue was full. Monitor more often."
        )
    if described.n_unmatched:
        remarks.append(
            f"{format_count(described.n_unmatched, 'label')} of {described.n_records:,} belong to "
            f"no prediction of this window, such as {', '.join(described.unmatched[:3])}."
        )
    if described.unknown_classes:
        names = ", ".join(f"{name} ({n:,})" for name, n in described.unknown_classes.items())
        remarks.append(f"Labels that are no classes of the model count as errors: {names}.")
    return remarks


def _without_features(reference: Reference) -> Reference:
    """Return a reference for predictions whose source stores no features, such as a batch job's."""
    test, validation = (
        replace(part, features=part.features[:, :0])
        for part in (reference.test, reference.validation)
    )
    return replace(reference, test=test, validation=validation)


def select_trusted_labels(window: Window, *, blind_only: bool) -> Window:
    """Return a window without the labels that are no evidence.

    Those that a model gave, and with ``blind_only`` those by people who saw the prediction.
    """
    by_model = window.rows["label_source"].str.startswith(MODEL_SOURCE).fillna(False)
    is_trusted = ~by_model.to_numpy(bool)
    if blind_only:
        is_trusted &= window.rows["is_blind"].to_numpy(bool)
    return replace(window, rows=window.rows.assign(label=np.where(is_trusted, window.labels, -1)))


def estimate_accuracies(
    window: Window, reference: Reference | None
) -> tuple[AccuracyEstimate, ...]:
    """Return the estimate of each estimator with its error, the most accurate one first."""
    if reference is None or not len(window):
        return ()
    estimates = []
    for name in estimators.estimator_names():
        accuracy = estimators.estimate_accuracy(name, reference.validation, window.probabilities)
        error = expected_error(reference, name, accuracy, window.statistics)
        estimates.append(AccuracyEstimate(name, accuracy, error, len(window)))
    unknown = float("inf")
    return tuple(
        sorted(estimates, key=lambda e: unknown if e.expected_error is None else e.expected_error)
    )


def _draw_evidently_pages(
    findings: Sequence[Finding], window: Window, reference: Reference | None, config: ReportConfig
) -> dict[str, str]:
    has_alarm = any(finding.status == "alarm" for finding in findings)
    is_due = config.evidently == "always" or (config.evidently == "on_alarm" and has_alarm)
    if reference is None or not is_due:
        return {}
    return draw_evidently_pages(reference, window, config.max_rows)


def _baseline(reference: Reference | None) -> Baseline | None:
    if reference is None:
        return None
    test = reference.test
    counts = np.bincount(test.predicted, minlength=len(reference.class_names))
    return Baseline(
        len(test),
        test.accuracy,
        float(test.confidence.mean()),
        tuple((counts / len(test)).tolist()),
        compute_means(test.statistics),
    )
