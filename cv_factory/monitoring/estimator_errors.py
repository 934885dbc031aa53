"""Errors of the estimators of the accuracy, measured on corrupted images whose labels are known.

No estimator is safe without assumptions on the shift (S. Garg et al., 2022), so that an estimate is
worth as much as its error on shifts that were tried.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cv_factory.evaluation.corruptions import SEVERITIES, corrupt, corruption_names
from cv_factory.inference.predictor import Predictor
from cv_factory.inference.reference import EstimatorError, LabeledOutputs, Reference
from cv_factory.monitoring.estimators import estimate_accuracy, estimator_names
from cv_factory.progress import track

#: An error counts for estimates that are lower than its own by this share, too.
_MARGIN = 0.02


def measure_estimator_errors(
    predictor: Predictor,
    validation: LabeledOutputs,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    seed: int,
) -> tuple[EstimatorError, ...]:
    """Estimate and measure the accuracy of images as they are, and under every corruption.

    Args:
        predictor: Scores the images.
        validation: What the estimators are fitted on: outputs for other images than ``images``.
        images: Uint8 ``(n, H, W, C)``.
        labels: True classes, int64 ``(n,)``.
        seed: Of the corruptions.
    """
    kinds = [("none", 0), *((name, s) for name in corruption_names() for s in SEVERITIES)]
    rows: list[EstimatorError] = []
    for name, severity in track(kinds, f"Estimating the accuracy of {len(images)} images"):
        corrupted = corrupt(images, name, severity, seed) if severity else images
        probabilities = predictor.predict(corrupted).probabilities
        accuracy = float((probabilities.argmax(axis=1) == labels).mean())
        for estimator in estimator_names():
            estimate = estimate_accuracy(estimator, validation, probabilities)
            rows.append(EstimatorError(estimator, name, severity, len(labels), accuracy, estimate))
    return tuple(rows)


def expected_error(
    reference: Reference, estimator: str, estimate: float | None = None
) -> float | None:
    """Return how far an estimate of the accuracy may be off, as a share of 1.

    It is the largest error on the corruptions on which the estimator said at least as much as now,
    which grows while the estimate falls. Below all estimates that were tried, nothing is known to
    hold: the largest error of all is returned.

    Args:
        reference: Holds the errors that were measured.
        estimator: Such as ``cbpe``.
        estimate: What it says now, as a share of 1; None for any estimate.

    Returns:
        The error, at least 0; None if no error of this estimator was measured.
    """
    rows = [row for row in reference.estimator_errors if row.estimator == estimator]
    if estimate is not None:
        least = estimate - _MARGIN
        rows = [row for row in rows if row.severity == 0 or row.estimate >= least]
    return max((abs(row.error) for row in rows), default=None)


def best_estimator(reference: Reference) -> str | None:
    """Return the estimator with the smallest mean error on corruptions; None if none was measured.

    The first by name of equals.
    """
    errors: dict[str, list[float]] = {}
    for row in reference.estimator_errors:
        errors.setdefault(row.estimator, []).append(abs(row.error))
    return min(sorted(errors), key=lambda name: _mean(errors[name]), default=None)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
