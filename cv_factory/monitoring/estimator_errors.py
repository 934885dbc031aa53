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
#: Estimates differ by chance by this share.
_MARGIN = 0.02
#: Images are alike where no mean statistic differs by more standard deviations of the reference,
#: and two standard errors.
_LARGEST_DISTANCE = 0.1
_SMALLEST_SPREAD = 1e-3

Span = tuple[float, float]


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
    estimate: float,
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
    estimate: float,
    statistics: npt.NDArray[np.float32] | None = None,
) -> Span:
    """Return how far an estimate of the accuracy may be too high, and too low, as shares of 1.

    Images in the field may be a mixture of clean and corrupted ones. For each corruption, the share
    of corrupted images follows from the estimate, which lies between those for clean and corrupted
    images; the error lies between theirs likewise. The largest errors are returned: over those
    mixtures that are as bright, rich in contrast and sharp as the images or, where none is, over
    all. Two standard errors of the measured accuracy are added, since few images measured it.

    Args:
        reference: Holds errors of this estimator.
        estimator: Such as ``cbpe``.
        estimate: What it says now, as a share of 1.
        statistics: Of the images that it says it of, float32 ``(N, 5)``, columns ``STATISTICS``,
            NaN where they are unknown; None for any images.
    """
    rows = [row for row in reference.estimator_errors if row.estimator == estimator]
    clean = min(rows, key=lambda row: row.severity)
    mixtures = [(row, _estimate_shares(clean, row, estimate)) for row in rows]
    allowed = None if statistics is None else _allowed_means(statistics, reference)
    if allowed is not None:
        alike = [(row, _restrict_shares(clean, row, span, allowed)) for row, span in mixtures]
        mixtures = [(row, span) for row, span in alike if span[0] <= span[1]] or mixtures
    bounds = [
        (_mix(share, clean.error, row.error), 2.0 * _mix(share, _noise(clean), _noise(row)))
        for row, span in mixtures
        for share in span
    ]
    too_high = max(error + noise for error, noise in bounds)
    too_low = max(noise - error for error, noise in bounds)
    return min(max(too_high, 0.0), estimate), min(max(too_low, 0.0), 1.0 - estimate)


def best_estimator(reference: Reference) -> str | None:
    """Return the estimator with the smallest mean error on corruptions; None if none was measured.

    The first by name of equals.
    """
    errors: dict[str, list[float]] = {}
    for row in reference.estimator_errors:
        errors.setdefault(row.estimator, []).append(abs(row.error))
    return min(sorted(errors), key=lambda name: _mean(errors[name]), default=None)


def _noise(row: EstimatorError) -> float:
    """Return the standard error of the measured accuracy."""
    return math.sqrt(row.accuracy * (1.0 - row.accuracy) / row.n_images)


def _mix(share: float, clean: float, corrupted: float) -> float:
    return share * corrupted + (1.0 - share) * clean


def _estimate_shares(clean: EstimatorError, row: EstimatorError, estimate: float) -> Span:
    """Return the least and the largest share of corrupted images that the estimate agrees with.

    All are corrupted where it lies beyond that for corrupted images.
    """
    if abs(row.estimate - clean.estimate) < _MARGIN:
        return 0.0, 1.0
    low, high = _find_span(clean.estimate, row.estimate, estimate - _MARGIN, estimate + _MARGIN)
    return min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)


def _restrict_shares(
    clean: EstimatorError, row: EstimatorError, span: Span, allowed: Sequence[Span]
) -> Span:
    """Return the part of a span of shares whose mean statistics are allowed; no span if none is."""
    low, high = span
    for mean, corrupted, (least, most) in zip(
        clean.statistics, row.statistics, allowed, strict=False
    ):
        if mean == corrupted:
            low, high = (low, high) if least <= mean <= most else (1.0, 0.0)
        else:
            first, last = _find_span(mean, corrupted, least, most)
            low, high = max(low, first), min(high, last)
    return low, high


def _find_span(start: float, end: float, low: float, high: float) -> Span:
    """Return where the line from ``start`` at 0 to ``end`` at 1 lies between ``low`` and ``high``.

    The two differ.
    """
    first, last = sorted(((low - start) / (end - start), (high - start) / (end - start)))
    return first, last


def _allowed_means(statistics: npt.NDArray[np.float32], reference: Reference) -> list[Span] | None:
    """Return between which means corrupted images are like these; None where one is unknown."""
    compared = statistics[:, -len(_COMPARED) :].astype(np.float64)
    is_measured = ~np.isnan(compared)
    counts = is_measured.sum(axis=0)
    if not counts.all():
        return None
    means = np.where(is_measured, compared, 0.0).sum(axis=0) / counts
    spread = reference.test.statistics[:, -len(_COMPARED) :].std(axis=0, dtype=np.float64)
    limits = (_LARGEST_DISTANCE + 2.0 / np.sqrt(counts)) * np.maximum(spread, _SMALLEST_SPREAD)
    return list(zip((means - limits).tolist(), (means + limits).tolist(), strict=True))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
