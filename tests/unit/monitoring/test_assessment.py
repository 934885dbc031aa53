"""From a window of predictions to a report."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from cv_factory.config.loader import load_config
from cv_factory.config.monitoring import MonitoringPipelineConfig
from cv_factory.data.image_manifest import STRING
from cv_factory.inference.reference import STATISTICS, Reference
from cv_factory.monitoring.assessment import Subject, assess, select_trusted_labels
from cv_factory.monitoring.labels import (
    RECORD_COLUMNS,
    SAMPLE_COLUMNS,
    Frame,
    Labels,
    build_table,
    join_labels,
)
from cv_factory.monitoring.report import MonitoringReport
from cv_factory.monitoring.window import Window
from tests.unit.monitoring.conftest import draw_outputs, to_window

NOW = datetime(2026, 11, 29, 6, tzinfo=UTC)
SUBJECT = Subject("pets", 3, "prediction log of pets", True, ("2 labels matched no prediction.",))

NO_LABELS = Labels(build_table([], RECORD_COLUMNS), build_table([], SAMPLE_COLUMNS))


def run(
    window: Window, reference: Reference | None, *settings: str, labels: Labels = NO_LABELS
) -> MonitoringReport:
    """Return the report of a window that is joined with its labels already."""
    ids = pd.Series([f"p{i}" for i in range(len(window))], dtype=STRING)
    window = replace(window, rows=window.rows.assign(id=ids))
    overrides = ["report.evidently=never", *settings]
    config = load_config(MonitoringPipelineConfig, overrides=overrides)
    return assess(window, reference, labels, SUBJECT, config, NOW)


def labeled_window(n: int, seed: int, *, n_labels: int, error: float = 0.03) -> Window:
    outputs = draw_outputs(n, seed, error=error)
    labels = np.where(np.arange(n) < n_labels, outputs.labels, -1)
    sources = np.where(labels >= 0, "person:ann", None)
    return to_window(outputs, version="3", label=labels, label_source=sources, is_blind=labels >= 0)


def test_good_traffic_is_silent(reference: Reference) -> None:
    report = run(labeled_window(600, 5, n_labels=200), reference)
    assert report.status == "silent"
    assert report.recommendation.action == "none"
    assert (report.n_predictions, report.n_distinct, report.n_labels) == (600, 600, 200)
    assert report.start == "2026-11-01T00:00:00+00:00"
    assert report.end == "2026-11-01T00:09:59+00:00"
    assert report.remarks == SUBJECT.remarks
    assert report.baseline is not None
    assert report.baseline.n_images == len(reference.test)


def test_estimates_are_near_the_accuracy(reference: Reference) -> None:
    report = run(labeled_window(600, 6, n_labels=0, error=0.2), reference)
    assert {e.estimator for e in report.estimates} == {
        "atc",
        "cbpe",
        "difference_of_confidences",
    }
    assert all(0.7 < e.accuracy < 0.99 for e in report.estimates)
    # The reference has errors of one of them, which is named first.
    assert report.estimates[0].estimator == "cbpe"
    assert report.estimates[0].expected_error is not None
    assert report.estimates[1].expected_error is None


def test_drift_alerts_and_harm_with_drift_recommends_retraining(reference: Reference) -> None:
    shifted = to_window(draw_outputs(600, 7, shift=2.0), version="3")
    assert run(shifted, reference).recommendation.action == "alert"
    worse = labeled_window(600, 8, n_labels=400, error=0.3)
    report = run(worse, reference)
    assert "error_rise" in {finding.detector for finding in report.alarms}
    assert report.recommendation.action in ("rollback", "retrain")


def test_timeline_covers_the_window_evenly(reference: Reference) -> None:
    report = run(labeled_window(610, 9, n_labels=305), reference)
    sizes = [bucket.n_predictions for bucket in report.timeline]
    assert sum(sizes) == 610
    assert max(sizes) - min(sizes) <= 1
    assert report.timeline[0].n_labels == sizes[0]
    assert report.timeline[0].accuracy is not None
    assert report.timeline[-1].accuracy is None
    assert sum(report.timeline[0].class_shares) == pytest.approx(1)
    assert report.timeline[0].statistics[0] == 28.0


def test_repeats_and_labels_by_models_are_no_evidence(reference: Reference) -> None:
    outputs = draw_outputs(100, 10)
    hmacs = [f"{i % 50}" for i in range(100)]
    window = to_window(
        outputs, version="3", label=outputs.labels, label_source="model:pets/2", image_hmac=hmacs
    )
    report = run(window, reference)
    assert (report.n_predictions, report.n_distinct, report.n_labels) == (100, 50, 0)
    assert sum(row.n_labels for row in report.coverage) == 100


def test_labels_beside_the_prediction_may_be_left_out() -> None:
    outputs = draw_outputs(4, 11)
    is_blind = np.array([True, False, True, False])
    window = to_window(outputs, label=outputs.labels, label_source="person:ann", is_blind=is_blind)
    trusted = select_trusted_labels(window, blind_only=True)
    assert (trusted.labels >= 0).tolist() == is_blind.tolist()
    assert (window.labels >= 0).all()
    assert (select_trusted_labels(window, blind_only=False).labels >= 0).all()


def test_coverage_is_counted_by_day_and_version(reference: Reference) -> None:
    outputs = draw_outputs(4, 12)
    days = np.array(["2026-11-01", "2026-11-01", "2026-11-02", "2026-11-02"], "datetime64[ms]")
    labels = np.where([True, False, False, True], outputs.labels, -1)
    window = to_window(
        outputs,
        time=days,
        version=["3", "3", "3", "4"],
        label=labels,
        label_source="system:till",
    )
    rows = [
        (row.day, row.version, row.n_predictions, row.n_labels)
        for row in run(window, reference).coverage
    ]
    assert rows == [("2026-11-01", "3", 2, 1), ("2026-11-02", "3", 1, 0), ("2026-11-02", "4", 1, 1)]


def test_without_reference_or_predictions_nothing_passes(reference: Reference) -> None:
    empty = to_window(draw_outputs(0, 13))
    for report in (run(empty, reference), run(labeled_window(60, 14, n_labels=0), None)):
        assert report.status == "not_enough_evidence"
        assert report.recommendation.action == "none"
        assert report.estimates == ()
    assert run(empty, reference).start is None
    assert "no reference" in run(empty, None).findings[0].summary


@pytest.mark.parametrize(("shares", "status"), [(None, "silent"), ((1, 0, 0, 0, 0), "alarm")])
def test_predictions_without_features_are_compared_by_the_rest(
    reference: Reference, shares: tuple[int, ...] | None, status: str
) -> None:
    outputs = draw_outputs(400, 17, shares=shares)
    unknown = dict.fromkeys(STATISTICS, np.nan)
    window = to_window(replace(outputs, features=outputs.features[:, :0]), version="3", **unknown)
    report = run(window, reference)
    assert report.status == status
    assert "The source stores no features" in report.remarks[-1]


def test_a_batch_without_times_is_reported(reference: Reference) -> None:
    times = np.full(60, np.datetime64("NaT"), "datetime64[ms]")
    report = run(to_window(draw_outputs(60, 15), time=times), reference)
    assert (report.start, report.end) == (None, None)
    assert [row.day for row in report.coverage] == ["unknown"]
    assert [bucket.start for bucket in report.timeline] == [None, None]


def test_accuracy_is_estimated_from_the_labels_that_were_asked_for(reference: Reference) -> None:
    outputs = draw_outputs(200, 16)
    ids = [f"p{i}" for i in range(200)]
    records: list[dict[str, object]] = [
        {"id": f"l{i}", "time": NOW, "prediction_id": ids[i], "source": "person:ann",
         "label": "abcde"[outputs.labels[i]], "is_blind": True}
        for i in range(100)
    ]  # fmt: skip
    records += [
        {**records[0], "id": "l200", "label": "zebra", "prediction_id": "p150"},
        {**records[0], "id": "l201", "prediction_id": "p999"},
    ]
    sample = [
        {"prediction_id": ids[i], "stratum": "uniform", "inclusion_probability": 0.5}
        for i in range(100)
    ]
    frame = Frame(datetime(2026, 10, 1, tzinfo=UTC), NOW, None, 0.5)
    labels = Labels(
        build_table(records, RECORD_COLUMNS),
        build_table([{"time": NOW, **row} for row in sample], SAMPLE_COLUMNS),
        (frame,),
    )
    window = join_labels(to_window(outputs, id=ids, version="3"), labels)
    report = run(window, reference, labels=labels)
    estimate = report.labeled_accuracy
    assert estimate is not None
    assert (estimate.n_asked, estimate.n_labeled) == (100, 100)
    assert estimate.accuracy == pytest.approx(
        (outputs.predicted == outputs.labels)[:100].mean(), abs=0.01
    )
    assert report.n_labels == 101  # a class that the model does not know is an error
    assert "1 label of 102 belong to no prediction of this window, such as p999." in report.remarks
    assert "Labels that are no classes of the model count as errors: zebra (1)." in report.remarks


def test_lost_predictions_and_windows_of_the_past_are_told(reference: Reference) -> None:
    window = replace(labeled_window(60, 18, n_labels=0), n_lost=7)
    report = run(window, reference)
    assert report.is_live
    assert report.remarks[-1].startswith("7 predictions were lost before they were stored")
    assert not run(window, reference, "window.end=2026-11-02").is_live
    assert not run(window, reference, "window.batch=scores").is_live


def test_a_window_without_repeats_is_not_copied(reference: Reference) -> None:
    """A million predictions would be in memory once more for each detector."""
    hmacs = [f"{number:064x}" for number in range(100)]
    window = to_window(draw_outputs(100, 41), image_hmac=hmacs)
    assert window.distinct() is window
    repeated = to_window(draw_outputs(100, 41), image_hmac=["a" * 64, *hmacs[:99]][::-1])
    repeated = replace(repeated, rows=repeated.rows.assign(is_cached=[True] + [False] * 99))
    assert len(repeated.distinct()) == 99
    assert repeated.distinct() is repeated.distinct()
    assert window.select(slice(10, 20)).features.base is not None


def test_outputs_that_are_no_numbers_are_left_out_and_told(reference: Reference) -> None:
    window = labeled_window(300, 19, n_labels=100)
    probabilities, features = window.probabilities.copy(), window.features.copy()
    probabilities[3], features[4, 0], features[5, 0] = np.nan, np.inf, np.nan
    report = run(replace(window, probabilities=probabilities, features=features), reference)
    assert (report.status, report.n_predictions) == ("silent", 297)
    assert not any("nan" in finding.summary for finding in report.findings)
    assert report.remarks[-1].startswith("3 predictions left out: probabilities or features")
