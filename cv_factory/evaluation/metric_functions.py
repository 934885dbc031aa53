"""Classification metrics from labels and probabilities alone; their intervals are ``intervals``.

What cannot be computed raises ``UndefinedMetricError``; no metric has a default value.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_factory.errors import CVFactoryError

Ints = NDArray[np.int64]
Floats = NDArray[np.float32] | NDArray[np.float64]
Doubles = NDArray[np.float64]
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


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
    """Ranks of one class's images among all images by descending score, ties included.

    Attributes:
        order: All images by descending score, int64 ``(N,)``.
        positives: The images of the class by descending score, int64 ``(P,)``.
        above: For each positive, how many images score higher, int64 ``(P,)``.
        down_to: For each positive, how many images score as high or higher, int64 ``(P,)``.
        positives_above: As ``above``, of the positives alone.
        positives_down_to: As ``down_to``, of the positives alone.
    """

    order: Ints
    positives: Ints
    above: Ints
    down_to: Ints
    positives_above: Ints
    positives_down_to: Ints


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
        ratio(hits, predicted),
        ratio(hits, support),
        ratio(2 * hits, predicted + support),
    )


def macro_precision(confusion: Ints) -> float:
    """Return the unweighted mean of the classes' precision; 0 for one that is never predicted.

    Args:
        confusion: Counts by true and predicted class, int64 ``(K, K)``.

    Raises:
        MissingClassError: A class has no images.
    """
    _require_every_class(confusion.sum(axis=1))
    return float(np.nan_to_num(precision_recall_f1(confusion)[0]).mean())


def macro_recall(confusion: Ints) -> float:
    """Return the unweighted mean of the classes' recall; see ``macro_precision``."""
    _require_every_class(confusion.sum(axis=1))
    return float(precision_recall_f1(confusion)[1].mean())


def macro_f1(confusion: Ints) -> float:
    """Return the unweighted mean of the classes' F1; see ``macro_precision``."""
    _require_every_class(confusion.sum(axis=1))
    return float(precision_recall_f1(confusion)[2].mean())


def is_in_top_k(labels: Ints, probabilities: Floats, k: int) -> NDArray[np.bool_]:
    """Return whether each image's true class is among its ``k`` most probable, bool ``(N,)``.

    Of equally probable classes the one with the higher index counts as more probable, as in
    scikit-learn.

    Raises:
        UndefinedMetricError: There are no more than ``k`` classes.
    """
    n_classes = probabilities.shape[1]
    if n_classes <= k:
        raise UndefinedMetricError(f"the best {k} of {n_classes} classes are all there is")
    true_class_probability = probabilities[np.arange(len(labels)), labels][:, None]
    is_later = np.arange(n_classes) > labels[:, None]
    ranks_higher = (probabilities > true_class_probability) | (
        (probabilities == true_class_probability) & is_later
    )
    return np.asarray(ranks_higher.sum(axis=1) < k)


def roc_auc(labels: Ints, probabilities: Floats) -> float:
    """Return the area under the ROC curve: of class 1 for two classes, else one-vs-rest, macro.

    Args:
        labels: True classes, int64 ``(N,)``.
        probabilities: Float ``(N, K)``.

    Raises:
        MissingClassError: A class has no images.
    """
    return float(_areas(labels, probabilities)[0].mean())


def pr_auc(labels: Ints, probabilities: Floats) -> float:
    """Return the average precision, the area under the precision-recall curve; see ``roc_auc``."""
    return float(_areas(labels, probabilities)[1].mean())


def image_log_losses(labels: Ints, probabilities: Floats) -> Doubles:
    """Return each image's negative log probability of its true class, float64 ``(N,)``.

    Computed from the probabilities as they are, so that it is the log loss of what is served. Only
    0, whose loss is infinite, counts as the smallest positive float32 (a loss of 103).

    Args:
        labels: True classes, int64 ``(N,)``.
        probabilities: Float ``(N, K)``.
    """
    # Not -log: the loss of a probability of 1 is 0, not -0.
    return np.asarray(0.0 - np.log(np.maximum(_of_true_class(labels, probabilities), _SMALLEST)))


def clipped_image_log_losses(labels: Ints, probabilities: Floats) -> Doubles:
    """Return the log losses of evaluations stored before 2026-11-29, float64 ``(N,)``.

    Probabilities were clipped to ``[eps, 1 - eps]`` of their dtype, which hid how wrong a confident
    answer was: 1e-38 counted as 1e-7.
    """
    eps = float(np.finfo(probabilities.dtype).eps)
    clipped = np.clip(_of_true_class(labels, probabilities), eps, 1.0 - eps)
    return np.asarray(-np.log(clipped))


def log_loss(labels: Ints, probabilities: Floats) -> float:
    """Return the mean of ``image_log_losses``."""
    return float(image_log_losses(labels, probabilities).mean())


def image_brier_scores(labels: Ints, probabilities: Floats) -> Doubles:
    """Return each image's squared distance to the certain truth, float64 ``(N,)``.

    Summed over the classes; for two classes halved, which is Brier's score of class 1.

    Args:
        labels: True classes, int64 ``(N,)``.
        probabilities: Float ``(N, K)``.
    """
    n_classes = probabilities.shape[1]
    truth = np.eye(n_classes)[labels]
    scores = ((probabilities.astype(np.float64) - truth) ** 2).sum(axis=1)
    return np.asarray(scores / 2.0 if n_classes == 2 else scores)


def brier(labels: Ints, probabilities: Floats) -> float:
    """Return the mean of ``image_brier_scores``."""
    return float(image_brier_scores(labels, probabilities).mean())


def calibration_bins(confidence: Floats, n_bins: int) -> Ints:
    """Return the bin of each confidence, int64 ``(N,)``: equal widths over [0, 1], closed above."""
    return np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)


def expected_calibration_error(labels: Ints, probabilities: Floats, n_bins: int) -> float:
    """Return the mean distance between confidence and accuracy over bins of confidence.

    C. Guo et al., On Calibration of Modern Neural Networks, 2017, eq. 3.

    Args:
        labels: True classes, int64 ``(N,)``.
        probabilities: Float ``(N, K)``.
        n_bins: Bins of equal width.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(labels)), predicted].astype(np.float64)
    bins = calibration_bins(confidence, n_bins)
    gap = np.bincount(bins, weights=confidence - (predicted == labels), minlength=n_bins)
    return float(np.abs(gap).sum() / len(labels))


def rank_plans(labels: Ints, probabilities: Floats) -> list[RankPlan]:
    """Sort the images once for each class whose curves count (one class of two is enough).

    Args:
        labels: True classes, int64 ``(N,)``.
        probabilities: Float ``(N, K)``.
    """
    n_classes = probabilities.shape[1]
    classes = [1] if n_classes == 2 else range(n_classes)
    return [_rank_plan(labels == index, probabilities[:, index]) for index in classes]


def weighted_areas(plan: RankPlan, counts: Floats) -> tuple[Doubles, Doubles]:
    """Return ROC AUC and average precision with image i taken ``counts[i, j]`` times.

    Args:
        plan: One class's ranking.
        counts: Float ``(N, b)``, whole numbers; one column for each of b resamples.

    Returns:
        Float64 ``(b,)`` each; NaN where the class, or for the ROC curve the rest, is not drawn.
    """
    of_positives = counts[plan.positives]
    images = _sums(counts[plan.order])
    positives = _sums(of_positives)
    images_down_to, positives_down_to = images[plan.down_to], positives[plan.positives_down_to]
    n_positive = positives[-1].astype(np.float64)
    n_negative = images[-1] - n_positive
    negatives_twice = (
        images_down_to - positives_down_to + images[plan.above] - positives[plan.positives_above]
    )
    lost_twice = np.einsum("pb,pb->b", of_positives, negatives_twice, dtype=np.float64)
    roc = 1.0 - ratio(lost_twice, 2.0 * n_positive * n_negative)
    # Where no image is drawn down to a positive, that positive is not drawn either.
    precision = positives_down_to / np.maximum(images_down_to, 0.5, dtype=counts.dtype)
    average = np.einsum("pb,pb->b", of_positives, precision, dtype=np.float64)
    return roc, ratio(average, n_positive)


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Doubles:
    """Divide element by element; NaN where the denominator is not positive."""
    quotient = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _of_true_class(labels: Ints, probabilities: Floats) -> Doubles:
    return np.asarray(probabilities[np.arange(len(labels)), labels].astype(np.float64))


def _areas(labels: Ints, probabilities: Floats) -> tuple[Doubles, Doubles]:
    """Return ROC AUC and average precision of each class that counts, float64 ``(k,)`` each."""
    _require_every_class(np.bincount(labels, minlength=probabilities.shape[1]))
    once = np.ones((len(labels), 1))
    areas = [weighted_areas(plan, once) for plan in rank_plans(labels, probabilities)]
    return np.concatenate([roc for roc, _ in areas]), np.concatenate([pr for _, pr in areas])


def _require_every_class(support: NDArray[np.integer]) -> None:
    absent = np.flatnonzero(support == 0)
    if absent.size:
        raise MissingClassError(tuple(absent.tolist()))


def _rank_plan(is_positive: NDArray[np.bool_], scores: Floats) -> RankPlan:
    order = np.argsort(-scores, kind="stable")
    positives = order[is_positive[order]]
    all_descending, descending = -scores[order], -scores[positives]
    return RankPlan(
        order,
        positives,
        np.searchsorted(all_descending, descending, side="left"),
        np.searchsorted(all_descending, descending, side="right"),
        np.searchsorted(descending, descending, side="left"),
        np.searchsorted(descending, descending, side="right"),
    )


def _sums(counts: Floats) -> Floats:
    """Return running sums along the first axis, from 0: ``(n + 1, b)`` of ``(n, b)``."""
    sums = np.zeros((len(counts) + 1, counts.shape[1]), dtype=counts.dtype)
    np.cumsum(counts, axis=0, out=sums[1:])
    return sums
