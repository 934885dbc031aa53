"""Paired tests of two predictors on the same images: McNemar, and a paired bootstrap."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.evaluation import intervals
from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.metrics import ScoredImages, compute_metric, more_is_better


@dataclass(frozen=True)
class Comparison:
    """Difference between candidate and production in one metric, and whether it is beyond chance.

    Attributes:
        gain: Positive where the candidate is better (for a loss: where it is lower).
        is_beyond_chance: Whether the test rejects equality at the configured confidence.
        evidence: The test and its result in words.
    """

    gain: float
    is_beyond_chance: bool
    evidence: str


def compare(
    metric: str,
    candidate: Evaluation,
    production: Evaluation,
    config: EvaluateConfig,
    subset: NDArray[np.bool_] | None = None,
) -> Comparison:
    """Compare two predictors on one metric: McNemar's test for accuracy, else paired bootstrap.

    Args:
        metric: One of ``metric_names()``.
        candidate: The one that wants to replace the other.
        production: Evaluated on the same images with the same labels, in any order.
        config: Resamples, seed, confidence, top k and bins.
        subset: Only these of the candidate's images, bool ``(N,)``.

    Raises:
        UndefinedMetricError: The metric has no value on these images.
    """
    subset = np.ones(candidate.n_images, dtype=bool) if subset is None else subset
    ours = np.flatnonzero(subset)
    place = {id_: i for i, id_ in enumerate(production.predictions.ids)}
    theirs = np.array([place[candidate.predictions.ids[i]] for i in ours], dtype=np.int64)
    if metric == "accuracy":
        right = candidate.predictions.is_right[ours], production.predictions.is_right[theirs]
        return _mcnemar(*right, config.confidence)
    labels = candidate.predictions.labels[ours]
    both = (
        candidate.predictions.probabilities[ours],
        production.predictions.probabilities[theirs],
    )
    return _paired_bootstrap(metric, labels, both, config)


def _mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], confidence: float) -> Comparison:
    """Test whether the images on which only one is right favour one of them (exact)."""
    from scipy.stats import binomtest

    won, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p_value = float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0
    return Comparison(
        (won - lost) / len(ours),
        p_value < 1.0 - confidence,
        f"McNemar: {won} images won, {lost} lost, p = {p_value:.2g}",
    )


def _paired_bootstrap(
    metric: str,
    labels: m.Ints,
    both: tuple[m.Floats, m.Floats],
    config: EvaluateConfig,
) -> Comparison:
    """Resample the images once for both, and see whether the interval of the difference spans 0."""
    sign = 1.0 if more_is_better(metric) else -1.0
    values, resampled = [], []
    for probabilities in both:
        images = ScoredImages(labels, probabilities, config.top_k, config.calibration_bins)
        values.append(compute_metric(metric, images))
        # The same seed and sizes draw the same images for both.
        resampled.append(intervals.bootstrap(images, config.bootstrap_samples, config.seed)[metric])
    differences = sign * (resampled[0] - resampled[1])
    tail = 50.0 * (1.0 - config.confidence)
    low, high = np.nanpercentile(differences, [tail, 100.0 - tail])
    return Comparison(
        sign * (values[0] - values[1]),
        bool(low > 0.0 or high < 0.0),
        f"paired bootstrap: gain between {low:.4f} and {high:.4f} "
        f"({100 * config.confidence:g} % interval)",
    )
