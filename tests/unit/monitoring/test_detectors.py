"""Detectors: silent on what is like the reference, an alarm on what is not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cv_factory.config.detectors import DetectorsConfig
from cv_factory.inference.reference import Reference
from cv_factory.monitoring.detectors import detector_names, run_detectors
from cv_factory.monitoring.finding import Finding
from cv_factory.monitoring.window import Window
from tests.unit.monitoring.conftest import draw_outputs, to_window

Draw = Callable[..., Window]


def find(
    reference: Reference | None, window: Window, **settings: dict[str, Any]
) -> dict[str, Finding]:
    findings = run_detectors(reference, window, DetectorsConfig.model_validate(settings))
    return {finding.detector: finding for finding in findings}


def label(n_labels: int, n: int, seed: int, **settings: float) -> Window:
    """Return a window whose first predictions have labels."""
    outputs = draw_outputs(n, seed, **settings)
    labels = np.where(np.arange(n) < n_labels, outputs.labels, -1)
    sources = np.where(labels >= 0, "person:ann", None)
    return to_window(outputs, label=labels, label_source=sources)


def test_all_are_silent_on_predictions_like_the_reference(reference: Reference) -> None:
    findings = find(reference, label(400, 2000, 10))
    assert {name: finding.status for name, finding in findings.items()} == dict.fromkeys(
        findings, "silent"
    )
    assert all(finding.smallest_detectable for finding in findings.values())


def test_without_a_reference_nothing_passes(draw_window: Draw) -> None:
    findings = find(None, draw_window(500, 3))
    assert set(findings) >= set(detector_names())
    for finding in findings.values():
        assert finding.status == "not_enough_evidence"
        assert "no reference" in finding.summary


def test_too_few_predictions_are_not_enough_evidence(
    reference: Reference, draw_window: Draw
) -> None:
    for n in (0, 5):
        findings = find(reference, draw_window(n, 3)).values()
        assert {finding.status for finding in findings} == {"not_enough_evidence"}


def test_another_versions_reference_is_not_compared_with(
    reference: Reference, draw_window: Draw
) -> None:
    window = replace(draw_window(500, 3), class_names=("a", "b", "c", "d", "f"))
    assert "other classes" in find(reference, window)["martingale"].summary


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"shift": 0.5}, "feature 0"),
        ({"shares": [0.4, 0.15, 0.15, 0.15, 0.15]}, "class a"),
        ({"error": 0.3}, "confidence"),
    ],
)
def test_drift_is_found_and_named(
    reference: Reference, draw_window: Draw, settings: dict[str, Any], culprit: str
) -> None:
    finding = find(reference, draw_window(1000, 4, **settings))["martingale"]
    assert finding.status == "alarm"
    assert culprit in finding.summary
    assert finding.evidence is not None
    assert finding.evidence >= finding.threshold == 100
    assert finding.details["n_until_alarm"] <= 600


def test_repeats_of_an_image_are_no_evidence(reference: Reference) -> None:
    one = draw_outputs(1, 7, shift=1.0)
    repeated = type(one)(*(np.repeat(array, 1000, axis=0) for array in vars(one).values()))
    window = to_window(repeated, image_hmac=["0f"] * 1000)
    finding = find(reference, window)["martingale"]
    assert (finding.status, finding.n) == ("not_enough_evidence", 1)
    assert finding.details["n_repeats"] == 999


def test_statistics_that_were_not_measured_are_no_evidence(
    reference: Reference, draw_window: Draw
) -> None:
    window = draw_window(1000, 10)
    window.rows.loc[:, ["brightness", "contrast", "sharpness", "width", "height"]] = np.nan
    findings = find(reference, window)
    assert findings["martingale"].status == "silent"
    assert findings["input_quality"].status == "not_enough_evidence"


def test_a_disabled_detector_is_left_out(reference: Reference, draw_window: Draw) -> None:
    findings = find(reference, draw_window(200, 3), martingale={"enabled": False})
    assert "martingale" not in findings
    assert "error_rise" in findings


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="evidense"):
        DetectorsConfig.model_validate({"martingale": {"evidense": 10.0}})


def test_refused_and_unlike_images_are_an_alarm(reference: Reference, draw_window: Draw) -> None:
    window = replace(draw_window(500, 3), n_refused=200)
    finding = find(reference, window)["input_quality"]
    assert finding.status == "alarm"
    assert "refused 28.6%" in finding.summary
    wide = draw_window(500, 3)
    wide.rows.loc[:100, "width"] = 640.0
    assert "width 20.2%" in find(reference, wide)["input_quality"].summary
