"""Classification metrics and their bootstrap intervals, from labels and probabilities alone.

What cannot be computed raises ``UndefinedMetricError``; no metric has a default value.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_factory.errors import CVFactoryError

Ints = NDArray[np.int64]
Floats = NDArray[np.float32] | NDArray[np.float64]
Doubles = NDArray[np.float64]

METRIC_NAMES = ("accuracy", "macro_f1", "roc_auc", "log_loss")

# Entries of the arrays that one chunk of resamples works on: a few MB, which stay in the cache.
_CHUNK_ENTRIES = 2**20
# Half of it are right and half of it wrong: Agresti and Coull (1998) for 95 %, where it is z^2.
_PSEUDO_IMAGES = 4.0


class EvaluationError(CVFactoryError):
    """The probabilities, labels or ids that were handed in do not make an evaluation."""


class UndefinedMetricError(EvaluationError):
    """A metric or its interval has no value on these images; the message is the reason."""


class MissingClassError(UndefinedMetricError):
    """A metric needs images of every class; ``classes`` are the indices of those without."""

    def __init__(self, classes: tuple[int, ...]) -> None:
        """Keep the indices of the classes without images."""
        super().__init__(f"there are no test images of the classes with index {classes}")
        self.classes = classes


@dataclass(frozen=True)
class RankPlan:
    """Where one class's images stand among all others by their score, ties included.

    Attributes:
        positives: Indices of the images of the class, int64 ``(P,)``.
        negatives: Indices of all other images by ascending score, int64 ``(Q,)``.
        below: For each positive, how many negatives score lower, int64 ``(P,)``.
        not_above: For each positive, how many negatives score lower or the same, int64 ``(P,)``.
    """

    positives: Ints
    negatives: Ints
    below: Ints
    not_above: Ints


def accuracy(confusion: Ints) -> float:
    """Return the share of images on the diagonal of a confusion matrix, int64 ``(K, K)``."""
    return float(np.trace(confusion) / confusion.sum())


def confusion_matrix(labels: Ints, predicted: Ints, n_classes: int) -> Ints:
    """Count images by true class (rows) and predicted class (columns).

    Args:
        labels: True classes, int64 ``(N,)``.
        predicted: Predicted classes, int64 ``(N,)``.
        n_classes: K.

    Returns:
        Counts, int64 ``(K, K)``.
    """
    cells = np.bincount(labels * n_classes + predicted, minlength=n_classes * n_classes)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def precision_recall_f1(confusion: Ints) -> tuple[Doubles, Doubles, Doubles]:
    """Return precision, recall and F1 of each class, float64 ``(K,)`` each.

    NaN where there is none: precision of a class that is never predicted, recall of a class
    without images, F1 of a class that is neither predicted nor there.

    Args:
        confusion: Counts by true and predicted class, int64 ``(K, K)``.
    """
    hits = np.diag(confusion)
    predicted, support = confusion.sum(axis=0), confusion.sum(axis=1)
    return (
        _ratio(hits, predicted),
        _ratio(hits, support),
        _ratio(2 * hits, predicted + support),
    )


def macro_f1(confusion: Ints) -> float:
    """Return the unweighted mean of the classes' F1.

    Args:
        confusion: Counts by true and predicted class, int64 ``(K, K)``.

    Raises:
        MissingClassError: A class has no images.
    """
    _require_every_class(confusion.sum(axis=1))
    return float(precision_recall_f1(confusion)[2].mean())


def roc_auc(labels: Ints, probabilities: Floats) -> float:
    """Return the area under the ROC curve: of class 1 for two classes, else one-vs-rest, macro.

    Args:
        labels: True classes, int64 ``(N,)``.
        probabilities: Float ``(N, K)``.

    Raises:
        MissingClassError: A class has no images.
    """
    support = np.bincount(labels, minlength=probabilities.shape[1])
    _require_every_class(support)
    once = np.ones((len(labels), 1))
    areas = [_resampled_auc(plan, once) for plan in rank_plans(labels, probabilities)]
    return float(np.mean(areas))


def image_log_losses(labels: Ints, probabilities: Floats) -> Doubles:
    """Return each image's negative log probability of its true class, float64 ``(N,)``.

    Probabilities are clipped to ``[eps, 1 - eps]`` of their own dtype, as scikit-learn does, so
    that one image that was given none does not make the mean infinite.

    Args:
        labels: True classes, int64 ``(N,)``.
        probabilities: Float ``(N, K)``.
    """
    eps = float(np.finfo(probabilities.dtype).eps)
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(of_truth, eps, 1.0 - eps))


def log_loss(labels: Ints, probabilities: Floats) -> float:
    """Return the mean of ``image_log_losses``."""
    return float(image_log_losses(labels, probabilities).mean())


def rank_plans(labels: Ints, probabilities: Floats) -> list[RankPlan]:
    """Sort the images once for each class whose ROC curve counts (one class of two is enough).

    Args:
        labels: True classes, int64 ``(N,)``.
        probabilities: Float ``(N, K)``.
    """
    n_classes = probabilities.shape[1]
    classes = [1] if n_classes == 2 else range(n_classes)
    return [_rank_plan(labels == index, probabilities[:, index]) for index in classes]


def bootstrap(labels: Ints, probabilities: Floats, samples: int, seed: int) -> dict[str, Doubles]:
    """Compute every metric on resamples of the images, drawn with replacement.

    Accuracy and macro-F1 are drawn from the images plus four more, two right and two wrong
    (Agresti and Coull 1998): the plain bootstrap of a good model covers too seldom, and that of a
    faultless one is a single point. A resample that lacks a class averages over the others.

    Args:
        labels: True classes, int64 ``(N,)``.
        probabilities: Float ``(N, K)``.
        samples: How many resamples, B.
        seed: The same seed gives the same resamples.

    Returns:
        By metric name, float64 ``(B,)``; NaN where a resample has no value.
    """
    n_classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    losses = image_log_losses(labels, probabilities)
    plans = rank_plans(labels, probabilities)
    parts: dict[str, list[Doubles]] = {name: [] for name in METRIC_NAMES}
    rng = np.random.default_rng(seed)
    for drawn in _draws(len(labels), samples, rng):
        right, f1 = _resampled_confusions(labels[drawn], predicted[drawn], n_classes, rng)
        parts["accuracy"].append(right)
        parts["macro_f1"].append(f1)
        parts["log_loss"].append(losses[drawn].mean(axis=1))
        counts = _image_counts(drawn)
        areas = np.stack([_resampled_auc(plan, counts) for plan in plans])
        parts["roc_auc"].append(_mean_of_known(areas))
    return {name: np.concatenate(values) for name, values in parts.items()}


def interval(
    metric: str, value: float, resampled: Doubles, confidence: float
) -> tuple[float, float]:
    """Return a confidence interval from the spread of a metric over resamples.

    These are normal intervals on the scale on which they cover: as it is, around the mean of the
    smoothed resamples, for accuracy and macro-F1; logit for ROC AUC; log for log loss. Simulated
    with 360 images of 10 classes at accuracy 0.98 (500 runs, nominal 95 %) they cover 0.97, 0.96,
    0.96 and 0.95; plain percentiles of plain resamples cover 0.91, 0.92, 0.82 and 0.93 (400 runs).

    Args:
        metric: One of ``METRIC_NAMES``.
        value: The metric on the images themselves; it always lies in the interval.
        resampled: The metric on resamples, float64 ``(B,)``; NaN are left out.
        confidence: Such as 0.95.

    Raises:
        UndefinedMetricError: The resamples do not vary, or the ROC AUC is 1 or 0.
    """
    known = resampled[~np.isnan(resampled)]
    if known.size == 0 or known.min() == known.max():
        raise UndefinedMetricError("no interval: resamples of these images do not vary")
    reach = NormalDist().inv_cdf(0.5 + confidence / 2.0) * float(known.std())
    if metric == "log_loss":
        factor = math.exp(reach / value)
        low, high = value / factor, value * factor
    elif metric == "roc_auc":
        if value in (0.0, 1.0):
            raise UndefinedMetricError("no interval: the ranking of these images is all or nothing")
        odds, factor = value / (1.0 - value), math.exp(reach / (value * (1.0 - value)))
        low, high = odds / (odds + factor), odds / (odds + 1.0 / factor)
    else:
        centre = float(known.mean())
        low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    return min(low, value), max(high, value)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Doubles:
    quotient = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _require_every_class(support: NDArray[np.integer]) -> None:
    absent = np.flatnonzero(support == 0)
    if absent.size:
        raise MissingClassError(tuple(absent.tolist()))


def _rank_plan(is_positive: NDArray[np.bool_], scores: Floats) -> RankPlan:
    positives = np.flatnonzero(is_positive)
    others = np.flatnonzero(~is_positive)
    negatives = others[np.argsort(scores[others], kind="stable")]
    return RankPlan(
        positives,
        negatives,
        np.searchsorted(scores[negatives], scores[positives], side="left"),
        np.searchsorted(scores[negatives], scores[positives], side="right"),
    )


def _resampled_auc(plan: RankPlan, counts: Floats) -> Doubles:
    """Return the AUC ``(b,)`` with image i taken ``counts[i, j]`` times in resample j."""
    lower = np.zeros((len(plan.negatives) + 1, counts.shape[1]), dtype=counts.dtype)
    np.cumsum(counts[plan.negatives], axis=0, out=lower[1:])
    of_positives = counts[plan.positives]
    twice_wins = np.einsum("pb,pb->b", of_positives, lower[plan.below] + lower[plan.not_above])
    pairs = of_positives.sum(axis=0, dtype=np.float64) * lower[-1]
    return _ratio(twice_wins, 2.0 * pairs)


def _resampled_confusions(
    labels: Ints, predicted: Ints, n_classes: int, rng: np.random.Generator
) -> tuple[Doubles, Doubles]:
    """Return accuracy and macro-F1 ``(b,)`` of resampled classes ``(b, N)``, smoothed.

    The predictions of a few draws are overwritten in place, by right ones and wrong ones.
    """
    b, n_images = labels.shape
    n_smoothed = rng.binomial(labels.size, _PSEUDO_IMAGES / (n_images + _PSEUDO_IMAGES))
    where = np.unravel_index(rng.integers(0, labels.size, n_smoothed), labels.shape)
    shift = rng.integers(1, n_classes, n_smoothed) * rng.integers(0, 2, n_smoothed)
    predicted[where] = (labels[where] + shift) % n_classes

    row = np.arange(b)[:, None] * n_classes

    def count(classes: Ints) -> Ints:
        return np.bincount(classes.ravel(), minlength=b * n_classes).reshape(b, n_classes)

    is_right = labels == predicted
    hits = count((row + labels)[is_right])
    either = count(row + predicted) + count(row + labels)
    return is_right.mean(axis=1), _mean_of_known(_ratio(2 * hits, either).T)


def _draws(n_images: int, samples: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Yield image indices ``(b, N)``, a bounded number of resamples at a time."""
    at_once = max(1, _CHUNK_ENTRIES // n_images)
    for start in range(0, samples, at_once):
        yield rng.integers(0, n_images, (min(at_once, samples - start), n_images))


def _image_counts(drawn: Ints) -> NDArray[np.float32]:
    """Return how often each image stands in each resample, ``(N, b)`` from indices ``(b, N)``.

    Resamples run along the last axis, so that sums over sorted images are sums of whole rows.
    """
    b, n_images = drawn.shape
    cells = drawn * b + np.arange(b)[:, None]
    counts = np.bincount(cells.ravel(), minlength=b * n_images)
    return counts.reshape(n_images, b).astype(np.float32)


def _mean_of_known(values: Doubles) -> Doubles:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))
