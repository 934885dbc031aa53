"""Temperature scaling: fitted with an assumed error, checked on folds, applied inside the graph."""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cv_factory.evaluation import metric_functions as m
from cv_factory.export.calibrate import apply_temperature, calibrate, fit_temperature
from cv_factory.inference.predictor import CalibrationCheck, Contract, Predictor
from tests.support.predictors import digits_predictor

Probabilities = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def overconfident(
    temperature: float, n: int = 20_000, seed: int = 0
) -> tuple[Probabilities, Labels]:
    """Probabilities whose logits are multiplied by a temperature, and labels drawn without it."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, 4))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (honest.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    shown = np.exp(temperature * logits)
    return (shown / shown.sum(axis=1, keepdims=True)).astype(np.float32), labels


def without_error(n: int, confidence: float = 0.9) -> tuple[Probabilities, Labels]:
    """Probabilities of which the largest is always the true class's."""
    labels = np.arange(n) % 10
    rest = (1 - confidence) / 9
    return (np.eye(10)[labels] * (confidence - rest) + rest).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.5, 1.3, 3.0])
def test_the_temperature_is_fitted(temperature: float) -> None:
    probabilities, labels = overconfident(temperature)
    fitted, check = calibrate(probabilities, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    fixed = apply_temperature(probabilities, fitted)
    assert m.expected_calibration_error(labels, fixed, 15) < 0.015
    np.testing.assert_array_equal(fixed.argmax(axis=1), probabilities.argmax(axis=1))
    assert check.warning == ""
    assert check.n_images == len(labels)
    assert check.log_loss[1] < check.log_loss[0]
    assert check.calibration_error[1] < check.calibration_error[0]


def test_without_an_error_the_temperature_stays_moderate_and_a_warning_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    probabilities, labels = without_error(269)
    assert fit_temperature(probabilities, labels, assumed_errors=0.0) < 0.1
    with caplog.at_level(logging.WARNING):
        fitted, check = calibrate(probabilities, labels)
    assert 0.3 < fitted < 1.0
    assert check.n_errors == 0
    assert "None of the 269 validation images is misclassified" in check.warning
    assert check.warning in caplog.text
    assert apply_temperature(probabilities, fitted).max() < 0.999
    few, _ = calibrate(*without_error(30))
    assert fitted < few, "fewer images are less evidence"


def test_a_temperature_that_does_not_hold_up_is_not_used() -> None:
    for seed in range(10):
        probabilities, labels = overconfident(1.0, n=100, seed=seed)
        temperature, check = calibrate(probabilities, labels)
        is_worse = (
            check.log_loss[1] > check.log_loss[0]
            or check.calibration_error[1] > check.calibration_error[0]
        )
        assert (temperature == 1.0) == is_worse
        assert ("is not used" in check.warning) == is_worse


def test_a_fit_at_the_bound_is_no_fit() -> None:
    """Labels have nothing to do with certain answers: the best temperature is infinite."""
    probabilities, _ = without_error(400, confidence=0.99)
    temperature, check = calibrate(probabilities, np.random.default_rng(0).permutation(400) % 10)
    assert temperature == 1.0
    assert "ended at its bound" in check.warning


def test_certain_probabilities_are_calibrated() -> None:
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    temperature, _ = calibrate(probabilities, np.array([0, 1, 2, 1]))
    assert np.isfinite(apply_temperature(probabilities, temperature)).all()
    assert np.isfinite(apply_temperature(probabilities, 20.0)).all()


@pytest.mark.parametrize("model", ["small_cnn", "random_forest"])
def test_the_graph_contains_the_temperature(model: str) -> None:
    plain, dataset, split = digits_predictor(model)
    calibrated, _, _ = digits_predictor(model, calibrated=True)
    temperature = calibrated.contract.temperature
    assert temperature != 1.0
    assert plain.contract.temperature == 1.0
    assert calibrated.fingerprint != plain.fingerprint
    before, after = (p.predict(dataset.images).probabilities for p in (plain, calibrated))
    np.testing.assert_allclose(after, apply_temperature(before, temperature), atol=1e-5)
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    labels = dataset.labels[split.validation]
    losses = [m.log_loss(labels, p[split.validation]) for p in (before, after)]
    assert losses[1] <= losses[0]
    golden = calibrated.golden
    golden.verify(calibrated.predict(golden.images), "the calibrated predictor")


def test_the_check_is_stored_with_the_predictor(tmp_path: Path) -> None:
    plain, _, _ = digits_predictor("small_cnn")
    assert "calibration" not in plain.contract.to_dict()
    calibrated, _, split = digits_predictor("small_cnn", calibrated=True)
    calibrated.save(tmp_path)
    check = Predictor.load(tmp_path).contract.calibration
    assert check == calibrated.contract.calibration
    assert isinstance(check, CalibrationCheck)
    assert check.n_images == len(split.validation)
    assert Contract.from_dict(calibrated.contract.to_dict()) == calibrated.contract
