"""Temperature scaling: fitted, applied inside the graph, without changing a predicted class."""

import numpy as np
import numpy.typing as npt
import pytest

from cv_factory.evaluation import metric_functions as m
from cv_factory.export.calibrate import apply_temperature, fit_temperature
from tests.support.predictors import digits_predictor


def overconfident(
    temperature: float, n: int = 20_000, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Probabilities whose logits are multiplied by a temperature, and labels drawn without it."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, 4))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (honest.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    shown = np.exp(temperature * logits)
    return (shown / shown.sum(axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_fitted(temperature: float) -> None:
    probabilities, labels = overconfident(temperature)
    fitted = fit_temperature(probabilities, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    fixed = apply_temperature(probabilities, fitted)
    assert m.expected_calibration_error(labels, fixed, 15) < 0.015
    np.testing.assert_array_equal(fixed.argmax(axis=1), probabilities.argmax(axis=1))


def test_certain_probabilities_are_calibrated() -> None:
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    assert np.isfinite(fit_temperature(probabilities, np.array([0, 1, 2, 1])))
    assert np.isfinite(apply_temperature(probabilities, 20.0)).all()


@pytest.mark.parametrize("model", ["small_cnn", "logistic_regression"])
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
    np.testing.assert_array_equal(
        calibrated.golden.probabilities, calibrated.predict(calibrated.golden.images).probabilities
    )
