"""MonitoringReport: what the detectors say of a window of predictions, and what is recommended."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import TypeAdapter

from cv_factory.artifacts.artifact import Artifact
from cv_factory.monitoring.finding import Finding, Kind, Status

Action = Literal["none", "alert", "rollback", "retrain"]
#: Stands for an infinite evidence in JSON, which has no infinity.
_LARGEST = 1e300


@dataclass(frozen=True)
class Coverage:
    """Labels of one version on one day (UTC).

    Attributes:
        day: ISO 8601.
        version: Of the model.
        n_predictions: Number of predictions.
        n_labels: Number of those that have a label.
    """

    day: str
    version: str
    n_predictions: int
    n_labels: int

    @property
    def share(self) -> float:
        """Share of the predictions that have a label."""
        return self.n_labels / self.n_predictions


@dataclass(frozen=True)
class AccuracyEstimate:
    """Accuracy as estimated without labels.

    Attributes:
        estimator: Such as ``cbpe``.
        accuracy: Estimate, as a share of 1.
        expected_error: How far it may be off, in shares of 1, as measured on corrupted test images;
            None if that was not measured.
        n: Number of predictions.
    """

    estimator: str
    accuracy: float
    expected_error: float | None
    n: int


@dataclass(frozen=True)
class LabeledAccuracy:
    """Accuracy of the predictions that samples were drawn from.

    Attributes:
        n_predictions: Number of distinct images in it.
        n_asked: Number of those that were to be labelled.
        n_labeled: Number of those that have a label.
        accuracy: Horvitz-Thompson estimate, as a share of 1; None without enough labels.
        low: Lower end of its interval; None without an estimate.
        high: Upper end.
        confidence: Of the interval.
        reason: Why there is no estimate; empty if there is one.
    """

    n_predictions: int
    n_asked: int
    n_labeled: int
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    reason: str = ""


@dataclass(frozen=True)
class TimeBucket:
    """Predictions of one span of time.

    Attributes:
        start: Time of the first, ISO 8601 (UTC); None where times are unknown, as in a batch.
        n_predictions: Number of distinct predictions, at least 1.
        n_labels: Number of those that have a label that counts as evidence.
        confidence: Mean probability of the predicted class.
        class_shares: Share of each predicted class.
        estimated_accuracy: Without labels, by the report's first estimate; None if there is none.
        accuracy: Of the labeled predictions; None without labels.
        statistics: Mean of each of ``cv_factory.inference.reference.STATISTICS``; None where it was
            not measured.
    """

    start: str | None
    n_predictions: int
    n_labels: int
    confidence: float
    class_shares: tuple[float, ...]
    estimated_accuracy: float | None
    accuracy: float | None
    statistics: tuple[float | None, ...]


@dataclass(frozen=True)
class Recommendation:
    """What to do, and why.

    Attributes:
        action: What the findings recommend; the loop and people decide.
        reasons: One sentence each.
    """

    action: Action
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Baseline:
    """What the reference lets expect of the figures of a window.

    Attributes:
        n_images: Number of held-out images.
        accuracy: Their accuracy.
        confidence: Their mean probability of the predicted class.
        class_shares: Their share of each predicted class.
        statistics: Their mean of each of ``STATISTICS``; None where it was not measured.
    """

    n_images: int
    accuracy: float
    confidence: float
    class_shares: tuple[float, ...]
    statistics: tuple[float | None, ...]


@dataclass(frozen=True)
class MonitoringReport(Artifact):
    """Verdict on one window of a version's predictions.

    Attributes:
        model_name: The registered model.
        version: Number of the version.
        created: When it was made, ISO 8601 (UTC).
        source: Description of what was read.
        is_live: Whether it tells of what is served now; others neither alert nor are acted on.
        start: Time of the first prediction, ISO 8601 (UTC); None without predictions.
        end: Time of the last one.
        n_predictions: Number of predictions in the window.
        n_distinct: Number of those that repeat no earlier image.
        n_labels: Number of distinct predictions with a label that counts as evidence.
        n_refused: Number of images that could not be predicted; None if unknown.
        class_names: K names.
        findings: One or several for each detector.
        estimates: Of the accuracy without labels, the most accurate estimator first.
        recommendation: What to do.
        labeled_accuracy: Of the predictions that ``run.py labels queue`` drew samples from; None
            where nothing was drawn.
        baseline: What the reference lets expect; None if the version has no reference.
        coverage: Labels by day and version.
        timeline: Figures by span of time, oldest first.
        remarks: What a reader should know of how predictions and labels were read.
        evidently_pages: Pages by Evidently, HTML by name.
    """

    KIND: ClassVar[str] = "monitoring_report"

    model_name: str
    version: int
    created: str
    source: str
    is_live: bool
    start: str | None
    end: str | None
    n_predictions: int
    n_distinct: int
    n_labels: int
    n_refused: int | None
    class_names: tuple[str, ...]
    findings: tuple[Finding, ...]
    estimates: tuple[AccuracyEstimate, ...]
    recommendation: Recommendation
    labeled_accuracy: LabeledAccuracy | None = None
    baseline: Baseline | None = None
    coverage: tuple[Coverage, ...] = ()
    timeline: tuple[TimeBucket, ...] = ()
    remarks: tuple[str, ...] = ()
    evidently_pages: Mapping[str, str] = field(default_factory=dict)

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """Findings that are alarms."""
        return tuple(finding for finding in self.findings if finding.status == "alarm")

    @property
    def status(self) -> Status:
        """``alarm`` if there is one, ``not_enough_evidence`` if no detector could say anything."""
        verdicts = {finding.verdict for finding in self.findings}
        if "alarm" in verdicts:
            return "alarm"
        return "silent" if "silent" in verdicts else "not_enough_evidence"

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values: all but timeline and pages."""
        fields = asdict(self)
        del fields["timeline"], fields["evidently_pages"]
        verdict: dict[str, Any] = _as_json({"status": self.status, **fields})
        return verdict

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        for name, page in self.evidently_pages.items():
            (directory / f"{name}.html").write_text(page, encoding="utf-8")
        return {f"{name}.html": None for name in self.evidently_pages}

    def _header(self) -> dict[str, Any]:
        fields = asdict(self)
        fields["evidently_pages"] = sorted(self.evidently_pages)
        header: dict[str, Any] = _as_json(fields)
        return header

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        pages = {
            name: (directory / f"{name}.html").read_text(encoding="utf-8")
            for name in body["evidently_pages"]
        }
        report: Self = TypeAdapter(cls).validate_python({**body, "evidently_pages": pages})
        return report


def recommend(
    findings: Sequence[Finding],
    act_on: Sequence[Kind],
    act_at_evidence: float,
    *,
    has_predecessor: bool,
) -> Recommendation:
    """Return what findings recommend.

    An alarm of a kind that may act recommends a rollback where the input looks as it did at
    training, so that the version itself is to blame, and another one can be gone back to; else a
    retraining. Other alarms are for people.

    Args:
        findings: Of one window.
        act_on: Kinds of alarm that may act.
        act_at_evidence: Evidence from which on an alarm of harm may act.
        has_predecessor: Whether another version was in production before.
    """
    alarms = [finding for finding in findings if finding.status == "alarm"]
    if not alarms:
        return Recommendation("none")
    reasons = tuple(f"{finding.detector}: {finding.summary}" for finding in alarms)
    kinds = {finding.kind for finding in alarms}
    if not any(finding.kind in act_on and _may_act(finding, act_at_evidence) for finding in alarms):
        return Recommendation("alert", reasons)
    has_drift = "drift" in kinds or "quality" in kinds
    return Recommendation("rollback" if has_predecessor and not has_drift else "retrain", reasons)


def _may_act(alarm: Finding, act_at_evidence: float) -> bool:
    """Return whether an alarm has the evidence that acting needs."""
    return alarm.kind != "harm" or (alarm.evidence or 0.0) >= act_at_evidence


def _as_json(value: Any) -> Any:
    """Return nested values with lists for tuples; a number that JSON lacks becomes one it has."""
    if isinstance(value, Mapping):
        return {key: _as_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else math.copysign(_LARGEST, value)
    return value
