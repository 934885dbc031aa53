"""Detectors without a guarantee over many looks: they explain, or estimate with their error."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cv_factory.inference.reference import EstimatorError, Reference
from cv_factory.monitoring.detectors._disjoint import split_window
from cv_factory.monitoring.finding import Finding
from cv_factory.monitoring.window import Window
from tests.unit.monitoring.conftest import draw_outputs
from tests.unit.monitoring.test_detectors import find

Draw = Callable[..., Window]


@pytest.fixture(scope="module")
def drifted(reference: Reference, draw_window: Draw) -> dict[str, Finding]:
    """Return the findings on a window in which class a became frequent."""
    return find(reference, draw_window(2500, 4, shares=[0.4, 0.15, 0.15, 0.15, 0.15]))


def test_explanations_name_the_class_and_decide_nothing(drifted: dict[str, Finding]) -> None:
    for name in ("bbsd", "label_counts", "label_shift"):
        finding = drifted[name]
        assert (finding.status, finding.threshold) == ("silent", None)
    assert "differ in a" in drifted["bbsd"].summary
    assert "differ, most in a" in drifted["label_counts"].summary
    shares = drifted["label_shift"].details
    assert shares["em"]["a"] == pytest.approx(0.4, abs=0.03)
    assert shares["bbse"]["a"] == pytest.approx(0.4, abs=0.03)


def test_nothing_is_explained_where_nothing_drifted(
    reference: Reference, draw_window: Draw
) -> None:
    findings = find(reference, draw_window(2500, 10))
    assert "do not differ" in findings["bbsd"].summary
    assert "do not differ" in findings["label_counts"].summary
    assert findings["label_shift"].evidence < 0.05


def test_parts_are_disjoint_and_the_last_ones(
    drifted: dict[str, Finding], draw_window: Draw
) -> None:
    parts = split_window(draw_window(2500, 4), 1000)
    assert parts == [slice(500, 1500), slice(1500, 2500)]
    assert split_window(draw_window(300, 4), 1000) == [slice(0, 300)]
    for name in ("bbsd", "label_counts"):
        rows = drifted[name].details["parts"]
        assert [row["n"] for row in rows] == [1000, 1000]
        assert rows[0]["end"] < rows[1]["start"]


def test_a_class_that_is_never_predicted_is_no_error(draw_window: Draw) -> None:
    shares = [0.5, 0.5, 0, 0, 0]
    outputs = draw_outputs(800, 1, shares=shares, error=0.0)
    reference = Reference(("a", "b", "c", "d", "e"), "0" * 64, outputs, outputs)
    findings = find(reference, draw_window(500, 2, shares=shares, error=0.0))
    assert {finding.status for finding in findings.values()} <= {"silent", "not_enough_evidence"}
    findings = find(reference, draw_window(500, 2))
    assert findings["martingale"].status == "alarm"
    assert "differ" in findings["label_counts"].summary


def test_an_estimated_fall_is_an_alarm_unless_the_estimate_is_too_rough(
    reference: Reference, draw_window: Draw
) -> None:
    window = draw_window(2000, 4, error=0.4)
    finding = find(reference, window)["estimated_accuracy"]
    assert (finding.kind, finding.status) == ("performance", "alarm")
    assert finding.details["cbpe"]["estimate"] == pytest.approx(0.65, abs=0.1)
    assert "at most 2.1% too low" in finding.summary
    errors = EstimatorError("cbpe", "gaussian_blur", 3, 500, 0.8, 0.4)
    rough = find(replace(reference, estimator_errors=(errors,)), window)["estimated_accuracy"]
    assert rough.status == "silent"
    assert rough.smallest_detectable


def test_an_estimator_whose_error_is_unknown_decides_nothing(
    reference: Reference, draw_window: Draw
) -> None:
    window = draw_window(500, 4)
    finding = find(replace(reference, estimator_errors=()), window)["estimated_accuracy"]
    assert finding.status == "not_enough_evidence"
    assert "not measured" in finding.summary


def test_findings_are_the_same_each_time(reference: Reference, draw_window: Draw) -> None:
    state = np.random.get_state(legacy=False)  # noqa: NPY002
    window = draw_window(700, 4)
    rows = window.rows.copy()
    assert find(reference, window) == find(reference, window)
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    assert np.array_equal(after["state"]["key"], state["state"]["key"])
    assert window.rows.equals(rows)
