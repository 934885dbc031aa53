"""Errors of the estimators of the accuracy, measured on corrupted images whose labels are known.

No estimator is safe without assumptions on the shift (S. Garg et al., 2022), so that an estimate is
worth as much as its error on shifts that were tried.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cv_factory.data.image_statistics import image_statistics
from cv_factory.evaluation.corruptions import SEVERITIES, corrupt, corruption_names
from cv_factory.inference.predictor import Predictor
from cv_factory.inference.reference import STATISTICS, EstimatorError, LabeledOutputs, Reference
from cv_factory.monitoring.estimators import estimate_accuracy, estimator_names
from cv_factory.progress import track

#: Statistics by which images in the field are compared with corrupted ones.
_COMPARED = STATISTICS[2:]
#: An error counts for estimates that exceed its own by this share, too.
_MARGIN = 0.02
#: Images are alike where no mean statistic differs by more standard deviations of the reference.
_LARGEST_DISTANCE = 0.5
_SMALLEST_SPREAD = 1e-3


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
        statistics = image_statistics(corrupted)
        means = tuple(float(getattr(statistics, column).mean()) for column in _COMPARED)
        for estimator in estimator_names():
            estimate = estimate_accuracy(estimator, validation, probabilities)
            rows.append(
                EstimatorError(estimator, name, severity, len(labels), accuracy, estimate, means)
            )
    return tuple(rows)


def expected_error(
    reference: Reference,
    estimator: str,
    estimate: float | None = None,
    statistics: npt.NDArray[np.float32] | None = None,
) -> float | None:
    """Return how far an estimate may be off, as a share of 1; None if no error was measured.

    Arguments as for ``bound_errors``.
    """
    if estimator not in {row.estimator for row in reference.estimator_errors}:
        return None
    return max(bound_errors(reference, estimator, estimate, statistics))


def bound_errors(
    reference: Reference,
    estimator: str,
    estimate: float | None = None,
    statistics: npt.NDArray[np.float32] | None = None,
) -> tuple[float, float]:
    """Return how far an estimate of the accuracy may be too high, and too low, as shares of 1.

    These are the largest errors on corruptions that are like what is estimated: on which the
    estimator said at least as much, and whose images are as bright, rich in contrast and sharp.
    Where none of them is like it, nothing is known to hold: the largest errors of all are returned.
    Two standard errors of the measured accuracy are added, since few images measured it.

    Args:
        reference: Holds errors of this estimator.
        estimator: Such as ``cbpe``.
        estimate: What it says now, as a share of 1; None for any estimate.
        statistics: Of the images that it says it of, float32 ``(N, 5)``, columns ``STATISTICS``,
            NaN where they are unknown; None for any images.
    """
    rows = [row for row in reference.estimator_errors if row.estimator == estimator]
    alike = rows if statistics is None else _find_alike(rows, statistics, reference)
    if estimate is not None:
        alike = [row for row in alike if row.severity == 0 or row.estimate >= estimate - _MARGIN]
    bounds = [(row.error, _standard_error(row)) for row in alike or rows]
    too_high = max(error + 2.0 * noise for error, noise in bounds)
    too_low = max(2.0 * noise - error for error, noise in bounds)
    return max(too_high, 0.0), max(too_low, 0.0)


def best_estimator(reference: Reference) -> str | None:
    """Return the estimator with the smallest mean error on corruptions; None if none was measured.

    The first by name of equals.
    """
    errors: dict[str, list[float]] = {}
    for row in reference.estimator_errors:
        errors.setdefault(row.estimator, []).append(abs(row.error))
    return min(sorted(errors), key=lambda name: _mean(errors[name]), default=None)


def _standard_error(row: EstimatorError) -> float:
    return math.sqrt(row.accuracy * (1.0 - row.accuracy) / row.n_images)


def _find_alike(
    rows: Sequence[EstimatorError], statistics: npt.NDArray[np.float32], reference: Reference
) -> list[EstimatorError]:
    """Return the rows whose images have nearly the same means; all where none are known."""
    compared = statistics[:, -len(_COMPARED) :].astype(np.float64)
    is_known = ~np.isnan(compared)
    if not is_known.any(axis=0).all():
        return list(rows)
    means = np.where(is_known, compared, 0.0).sum(axis=0) / is_known.sum(axis=0)
    spread = reference.test.statistics[:, -len(_COMPARED) :].std(axis=0, dtype=np.float64)
    limits = _LARGEST_DISTANCE * np.maximum(spread, _SMALLEST_SPREAD)
    return [
        row
        for row in rows
        if not row.statistics or (np.abs(np.array(row.statistics) - means) <= limits).all()
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
