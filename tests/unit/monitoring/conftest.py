"""Held-out outputs and windows made of random numbers: what detectors say depends on no model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cv_factory.inference.reference import EstimatorError, LabeledOutputs, Reference
from cv_factory.monitoring.window import Window, build_rows

CLASS_NAMES = ("a", "b", "c", "d", "e")


def draw_outputs(
    n: int, seed: int, *, shares: Any = None, error: float = 0.03, shift: float = 0.0
) -> LabeledOutputs:
    """Draw outputs of a calibrated predictor.

    Args:
        n: Number of images.
        seed: Of everything.
        shares: Of the true classes.
        error: Share of wrong predictions.
        shift: Of the first feature and of the sharpness, in standard deviations.
    """
    rng, k = np.random.default_rng(seed), len(CLASS_NAMES)
    labels = rng.choice(k, n, p=shares)
    is_wrong = rng.random(n) < error
    predicted = (labels + is_wrong * rng.integers(1, k, n)) % k
    confidence = np.where(is_wrong, rng.uniform(0.4, 0.9, n), rng.uniform(0.8, 1.0, n))
    probabilities = np.repeat((1 - confidence)[:, None] / (k - 1), k, axis=1)
    probabilities[np.arange(n), predicted] = confidence
    features = rng.normal(size=(n, 6))
    features[:, 0] += shift
    looks = 0.5 + 0.05 * rng.normal(size=(n, 3))
    looks[:, 2] += 0.05 * shift
    statistics = np.concatenate([np.full((n, 2), 28.0), looks], axis=1)
    parts = (array.astype(np.float32) for array in (probabilities, features, statistics))
    return LabeledOutputs(labels.astype(np.int64), *parts)


def to_window(outputs: LabeledOutputs, **columns: Any) -> Window:
    """Return a window of outputs, a second apart; ``columns`` as for ``build_rows``."""
    from cv_factory.inference.reference import STATISTICS

    times = np.arange(len(outputs)) * np.timedelta64(1000, "ms") + np.datetime64("2026-11-01")
    values = {
        "time": times.astype("datetime64[ms]"),
        **dict(zip(STATISTICS, outputs.statistics.T, strict=True)),
        **columns,
    }
    rows = build_rows(CLASS_NAMES, outputs.probabilities, **values)
    return Window(rows, outputs.probabilities, outputs.features, CLASS_NAMES)


@pytest.fixture(scope="session")
def reference() -> Reference:
    test, validation = draw_outputs(3000, 1), draw_outputs(2000, 2)
    errors = (
        EstimatorError("cbpe", "none", 0, 500, 0.97, 0.97),
        EstimatorError("cbpe", "gaussian_blur", 3, 500, 0.7, 0.72),
    )
    return Reference(CLASS_NAMES, "0" * 64, test, validation, errors)


@pytest.fixture(scope="session")
def draw_window() -> Callable[..., Window]:
    """Return a function of ``draw_outputs``'s arguments that draws a window."""
    return lambda n, seed, **settings: to_window(draw_outputs(n, seed, **settings))
