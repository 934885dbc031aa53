"""Estimates of the accuracy without labels: of calibrated outputs, and of the corruption suite."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.evaluation.behavioral_checks import (
    evenly_spread,
    measure_robustness,
    read_robustness,
)
from cv_factory.evaluation.corruptions import SEVERITIES, corruption_names
from cv_factory.inference.reference import EstimatorError, Reference
from cv_factory.monitoring.build_reference import MAX_IMAGES, build_reference
from cv_factory.monitoring.estimator_errors import best_estimator, bound_errors, expected_error
from cv_factory.monitoring.estimators import estimate_accuracy, estimator_names
from tests.support.monitoring import calibrated_outputs
from tests.support.predictors import digits_predictor

ESTIMATORS = ("atc", "cbpe", "difference_of_confidences")


def reference_with(*errors: EstimatorError) -> Reference:
    outputs = calibrated_outputs(20)
    return Reference(("a", "b", "c"), "f", outputs, outputs, errors)


def error(
    estimate: float,
    accuracy: float,
    severity: int = 1,
    name: str = "cbpe",
    brightness: float = 0.5,
    n: int = 10**18,
) -> EstimatorError:
    return EstimatorError(name, "jpeg", severity, n, accuracy, estimate, (brightness, 0.5, 0.5))


def test_every_module_is_an_estimator() -> None:
    assert estimator_names() == ESTIMATORS


@pytest.mark.parametrize(
    ("name", "tolerance"), [("cbpe", 0.01), ("difference_of_confidences", 0.01), ("atc", 0.1)]
)
def test_a_fall_of_the_accuracy_is_estimated(name: str, tolerance: float) -> None:
    validation = calibrated_outputs(20_000, seed=1)
    same, harder = calibrated_outputs(20_000, seed=2), calibrated_outputs(20_000, 0.5, seed=3)
    assert same.accuracy - harder.accuracy > 0.1, "the shift does harm"
    estimate = estimate_accuracy(name, validation, same.probabilities)
    assert estimate == pytest.approx(same.accuracy, abs=0.01)
    estimate = estimate_accuracy(name, validation, harder.probabilities)
    assert estimate == pytest.approx(harder.accuracy, abs=tolerance)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("is_right", [True, False])
def test_estimates_stay_shares_where_all_answers_are_right_or_wrong(
    name: str, is_right: bool
) -> None:
    outputs = calibrated_outputs(50)
    labels = outputs.predicted if is_right else (outputs.predicted + 1) % 3
    estimate = estimate_accuracy(name, replace(outputs, labels=labels), outputs.probabilities)
    assert estimate == pytest.approx(float(is_right), abs=1e-6)


def test_equal_confidences_share_one_calibrated_value() -> None:
    probabilities = np.tile(np.array([[0.7, 0.2, 0.1]], np.float32), (4, 1))
    outputs = replace(
        calibrated_outputs(4), labels=np.array([0, 0, 0, 1]), probabilities=probabilities
    )
    assert estimate_accuracy("cbpe", outputs, probabilities[:1]) == pytest.approx(0.75)


CLEAN = error(0.95, 0.94, severity=0)


def test_the_expected_error_grows_as_the_estimate_falls() -> None:
    reference = reference_with(CLEAN, error(0.9, 0.95), error(0.6, 0.3), error(0.6, 0.0, name="x"))
    assert expected_error(reference, "cbpe", 0.99) == pytest.approx(0.01)
    # Up to a fifth of the images may be like those of which 0.6 was estimated.
    assert expected_error(reference, "cbpe", 0.9) == pytest.approx(0.2 * 0.3 + 0.8 * 0.01)
    assert expected_error(reference, "cbpe", 0.5) == pytest.approx(0.3), "below all that was tried"
    assert expected_error(reference, "cbpe", 0.2) == pytest.approx(0.2), "no accuracy is below 0"
    assert expected_error(reference, "atc", 0.9) is None
    assert best_estimator(reference) == "cbpe"
    assert best_estimator(reference_with()) is None


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 1.0])
def test_the_stated_band_holds_for_mixtures_of_clean_and_corrupted_images(
    share: float,
) -> None:
    validation, clean = calibrated_outputs(5000, seed=1), calibrated_outputs(4000, seed=2)
    wrong = calibrated_outputs(4000, 0.5, seed=3)
    wrong = replace(wrong, labels=np.where(np.arange(4000) % 2, wrong.labels, 0))
    rows = tuple(
        EstimatorError(
            "cbpe", kind, severity, 4000, part.accuracy,
            estimate_accuracy("cbpe", validation, part.probabilities), (0.5, 0.5, 0.5),
        )
        for kind, severity, part in (("none", 0, clean), ("blur", 2, wrong))
    )  # fmt: skip
    n = int(2000 * share)
    mixed = np.concatenate([wrong.probabilities[:n], clean.probabilities[: 2000 - n]])
    labels = np.concatenate([wrong.labels[:n], clean.labels[: 2000 - n]])
    estimate = estimate_accuracy("cbpe", validation, mixed)
    off = estimate - float((mixed.argmax(axis=1) == labels).mean())
    band = expected_error(reference_with(*rows), "cbpe", estimate, clean.statistics[:2000])
    assert band is not None
    assert off <= band <= off + 0.12
    if share >= 0.5:
        assert off > 0.08, "the estimate is far off"


def test_mixtures_that_look_like_the_images_count() -> None:
    dark = error(0.9, 0.2, brightness=0.1)
    reference = reference_with(CLEAN, error(0.85, 0.82, brightness=0.5), dark)
    spread = replace(
        reference.test, statistics=np.random.default_rng(0).normal(0.5, 0.1, (20, 5)).astype("f4")
    )
    reference = replace(reference, test=spread)

    def expect(brightness: float, estimate: float = 0.95) -> float | None:
        statistics = np.full((40_000, 5), 0.5, np.float32)
        statistics[:, 2] = brightness
        statistics[0, 2] = np.nan
        return expected_error(reference, "cbpe", estimate, statistics)

    assert expect(0.5) == pytest.approx(0.03, abs=0.02), "hardly one is dark"
    assert expect(0.3, estimate=0.93) == pytest.approx(0.5 * 0.7, abs=0.03), "half of them are"
    assert expect(0.1, estimate=0.9) == pytest.approx(0.7, abs=0.02)
    # Where no mixture is so bright, or nothing is known, all are possible: up to 0.4 are dark.
    for brightness in (0.9, np.nan):
        assert expect(brightness) == pytest.approx(0.4 * 0.7 + 0.6 * 0.01)


def test_estimates_that_are_too_high_are_no_reason_to_expect_one_that_is_too_low() -> None:
    reference = reference_with(CLEAN, error(0.9, 0.7), error(0.8, 0.82))
    assert bound_errors(reference, "cbpe", 0.8) == pytest.approx((0.2, 0.02))
    assert bound_errors(reference, "cbpe", 0.97) == pytest.approx((0.01, 0.0))


def test_the_error_of_few_images_is_less_certain() -> None:
    assert expected_error(reference_with(error(0.5, 0.5, n=100)), "cbpe", 0.5) == pytest.approx(0.1)


def test_a_reference_holds_both_parts_and_the_errors_of_every_corruption(tmp_path: Path) -> None:
    predictor, dataset, split = digits_predictor("logistic_regression")
    reference = build_reference(predictor, dataset, split, corrupted_images=40, seed=0)
    np.testing.assert_array_equal(reference.test.labels, dataset.labels[split.test])
    np.testing.assert_array_equal(reference.validation.labels, dataset.labels[split.validation])
    expected = predictor.predict(dataset.images[split.test])
    np.testing.assert_allclose(reference.test.probabilities, expected.probabilities, atol=1e-6)
    brightness = dataset.manifest["brightness"].to_numpy()[split.test]
    np.testing.assert_array_equal(reference.test.statistics[:, 2], brightness)
    kinds = {(row.corruption, row.severity) for row in reference.estimator_errors}
    assert kinds == {("none", 0), *((n, s) for n in corruption_names() for s in SEVERITIES)}
    assert len(reference.estimator_errors) == len(kinds) * len(ESTIMATORS)
    assert {row.n_images for row in reference.estimator_errors} == {40}
    sample, config = split.test[evenly_spread(len(split.test), 40)], EvaluateConfig()
    images, labels = dataset.images[sample], dataset.labels[sample]
    measured = measure_robustness(predictor, images, labels, config)
    assert read_robustness(reference, config.confidence) == measured
    for row in reference.estimator_errors:
        statistics = np.array([[8, 8, *row.statistics]], np.float32)
        error = expected_error(reference, row.estimator, row.estimate, statistics)
        assert error is not None
        assert error >= abs(row.error), "the stated band covers what was measured"
    reference.save(tmp_path)
    loaded = Reference.load(tmp_path)
    assert loaded.estimator_errors == reference.estimator_errors
    assert loaded.unfamiliarity is None, "the predictor does not score it"


def test_a_large_part_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{build_reference.__module__}.MAX_IMAGES", 10)
    predictor, dataset, split = digits_predictor("logistic_regression")
    reference = build_reference(predictor, dataset, split, corrupted_images=0, seed=0)
    assert (len(reference.test), len(reference.validation)) == (10, 10)
    assert reference.test.labels[[0, -1]].tolist() == dataset.labels[split.test[[0, -1]]].tolist()
    assert reference.estimator_errors == ()
    assert MAX_IMAGES == 10_000
