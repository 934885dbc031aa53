"""Confidence intervals: of metrics from a vectorized bootstrap, of shares in closed form.

A metric that few images decide (one confident error among thousands) has a spread that is itself
badly known; its interval uses Student's t with as many degrees of freedom as the images support.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.metric_functions import Doubles, Floats, Ints, UndefinedMetricError
from cv_factory.evaluation.metrics import ScoredImages, compute_metric, metric_names, more_is_better

# Entries of the arrays that one chunk of resamples works on: a few MB, which stay in the cache.
_CHUNK_ENTRIES = 2**20
# Half of it are right and half of it wrong: Agresti and Coull (1998) for 95 %, where it is z^2.
_PSEUDO_IMAGES = 4.0
_LOG_SCALE = ("log_loss", "brier")
_LOGIT_SCALE = ("roc_auc", "pr_auc")
_SHARES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "top_k_accuracy")
_CALIBRATION = "expected_calibration_error"
#: Resampled by array operations over all resamples at once; other metrics one resample at a time.
_VECTORIZED = frozenset({*_LOG_SCALE, *_LOGIT_SCALE, *_SHARES, _CALIBRATION})


def bootstrap(images: ScoredImages, samples: int, seed: int) -> dict[str, Doubles]:
    """Compute every metric on resamples of the images, drawn with replacement.

    What counts right and wrong images (accuracy, top-k and the macro means) is drawn from the
    images plus four more, two right and two wrong (Agresti and Coull 1998): the plain bootstrap of
    a good model covers too seldom, and that of a faultless one is a single point. A resample that
    lacks a class averages over the others.

    Args:
        images: The N images; top-k accuracy is left out where there are no more classes than k.
        samples: How many resamples, B.
        seed: The same seed gives the same resamples.

    Returns:
        By metric name, float64 ``(B,)``; NaN where a resample has no value.
    """
    rng = np.random.default_rng(seed)
    resampler = _Resampler(images, rng)
    draws = _draws(len(images.labels), samples, rng)
    parts = [resampler.measure(resamples) for resamples in draws]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def influence(labels: Ints, probabilities: Floats) -> dict[str, Doubles]:
    """Return how much each image moves a metric, float64 ``(N,)`` by metric name.

    The derivative of the metric by the image's weight: its share of the metric's spread. Given for
    the metrics that a few images may decide: ROC AUC, PR AUC, log loss and Brier score.

    Args:
        labels: True classes, int64 ``(N,)``; every class at least once.
        probabilities: Float ``(N, K)``.
    """
    losses = m.image_log_losses(labels, probabilities)
    scores = m.image_brier_scores(labels, probabilities)
    roc, pr = np.zeros(len(labels)), np.zeros(len(labels))
    plans = m.rank_plans(labels, probabilities)
    for plan in plans:
        roc += _roc_influence(plan) / len(plans)
        pr += _pr_influence(plan) / len(plans)
    return {
        "roc_auc": roc,
        "pr_auc": pr,
        "log_loss": losses - losses.mean(),
        "brier": scores - scores.mean(),
    }


def interval(
    metric: str,
    value: float,
    resampled: Doubles,
    confidence: float,
    influence: Doubles | None = None,
) -> tuple[float, float]:
    """Return a confidence interval from the spread of a metric over resamples.

    The scale is the one on which it covers: as it is, around the mean of the smoothed resamples,
    for what counts right and wrong images; logit for ROC and PR AUC; log for log loss and Brier
    score; for the calibration error as it is, less the bias that resampling shows.

    Args:
        metric: One of ``metric_names()``.
        value: The metric on the images themselves; it always lies in the interval.
        resampled: The metric on resamples, float64 ``(B,)``; NaN are left out.
        confidence: Such as 0.95.
        influence: The metric's row of ``influence``, float64 ``(N,)``; without it the spread is
            taken as known exactly.

    Raises:
        UndefinedMetricError: The resamples do not vary, or an area is 1 or 0.
    """
    values = resampled[~np.isnan(resampled)]
    if values.size == 0 or values.min() == values.max():
        raise UndefinedMetricError("no interval: resamples of these images do not vary")
    reach = _quantile(confidence, influence) * float(values.std())
    if metric in _LOG_SCALE:
        factor = math.exp(min(reach / value, 700.0))
        low, high = value / factor, value * factor
    elif metric in _LOGIT_SCALE:
        if value in (0.0, 1.0):
            raise UndefinedMetricError("no interval: the ranking of these images is all or nothing")
        odds = value / (1.0 - value)
        factor = math.exp(min(reach / (value * (1.0 - value)), 700.0))
        low, high = odds / (odds + factor), odds / (odds + 1.0 / factor)
    else:
        center = float(values.mean())
        if metric == _CALIBRATION:
            center = 2.0 * value - center
        low, high = max(0.0, center - reach), center + reach
        # An added loss may exceed 1.
        is_share = metric in _VECTORIZED or more_is_better(metric)
        high = min(1.0, high) if is_share else high
    return min(low, value), max(high, value)


def wilson(hits: float, n: float, confidence: float) -> tuple[float, float]:
    """Return Wilson's (1927) interval of a share of ``hits`` in ``n``, n at least 1."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    share = hits / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return min(max(0.0, center - reach), share), max(min(1.0, center + reach), share)


def f1_interval(hits: int, wrong: int, confidence: float) -> tuple[float, float]:
    """Return an interval of one class's F1 = 2 hits / (2 hits + wrong).

    F1 rises with the share of hits among all images that are of the class or were taken for it,
    and that share has Wilson's interval.
    """
    low, high = wilson(hits, hits + wrong, confidence)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def _quantile(confidence: float, influence: Doubles | None) -> float:
    """Return how many standard deviations an interval reaches.

    The variance of an estimated variance gives its degrees of freedom: 2 n / (kurtosis - 1).
    """
    from scipy.stats import t

    tail = 0.5 + confidence / 2.0
    if influence is None:
        return NormalDist().inv_cdf(tail)
    variance = float((influence**2).mean())
    if variance == 0.0:
        return NormalDist().inv_cdf(tail)
    kurtosis = float((influence**4).mean()) / variance**2
    freedom = 2.0 * len(influence) / max(kurtosis - 1.0, 1e-9)
    return float(t.ppf(tail, max(freedom, 1.0)))


class _Resampler:
    """Measures resamples of one set of scored images."""

    def __init__(self, images: ScoredImages, rng: np.random.Generator) -> None:
        labels, probabilities = images.labels, images.probabilities
        self._images, self._rng = images, rng
        self._n_classes = probabilities.shape[1]
        self._predicted = probabilities.argmax(axis=1).astype(np.int64)
        self._means = {
            "log_loss": m.image_log_losses(labels, probabilities),
            "brier": m.image_brier_scores(labels, probabilities),
        }
        self._in_top_k: NDArray[np.bool_] | None = None
        if self._n_classes > images.top_k:
            self._in_top_k = m.is_in_top_k(labels, probabilities, images.top_k)
        confidence = probabilities[np.arange(len(labels)), self._predicted].astype(np.float64)
        self._bins = m.calibration_bins(confidence, images.n_bins)
        self._gap = confidence - (self._predicted == labels)
        self._plans = m.rank_plans(labels, probabilities)

    def measure(self, resamples: Ints) -> dict[str, Doubles]:
        """Return every metric on resamples given as image indices ``(b, N)``."""
        values = self._shares(resamples)
        for name, scores in self._means.items():
            values[name] = scores[resamples].mean(axis=1)
        counts = _image_counts(resamples)
        gaps = np.stack(
            [
                self._gap[self._bins == k] @ counts[self._bins == k]
                for k in range(self._images.n_bins)
            ]
        )
        values[_CALIBRATION] = np.abs(gaps).sum(axis=0) / resamples.shape[1]
        areas = [m.weighted_areas(plan, counts) for plan in self._plans]
        values["roc_auc"] = _nan_mean(np.stack([roc for roc, _ in areas]))
        values["pr_auc"] = _nan_mean(np.stack([pr for _, pr in areas]))
        for name in set(metric_names()) - _VECTORIZED:
            values[name] = np.array([self._compute(name, indices) for indices in resamples])
        return values

    def _compute(self, name: str, indices: Ints) -> float:
        """Return a metric on one resample; NaN where it has no value."""
        labels, probabilities = self._images.labels[indices], self._images.probabilities[indices]
        try:
            return compute_metric(
                name, replace(self._images, labels=labels, probabilities=probabilities)
            )
        except UndefinedMetricError:
            return float("nan")

    def _shares(self, resamples: Ints) -> dict[str, Doubles]:
        """Return what counts right and wrong images, smoothed by the four pseudo-images.

        The predictions of a few draws are overwritten, by right ones and wrong ones.
        """
        labels, predicted = self._images.labels[resamples], self._predicted[resamples]
        b, n_images = labels.shape
        rng, k = self._rng, self._n_classes
        n_smoothed = rng.binomial(labels.size, _PSEUDO_IMAGES / (n_images + _PSEUDO_IMAGES))
        where = np.unravel_index(rng.integers(0, labels.size, n_smoothed), labels.shape)
        is_wrong = rng.integers(0, 2, n_smoothed)
        shift = rng.integers(1, k, n_smoothed) * is_wrong
        predicted[where] = (labels[where] + shift) % k

        row = np.arange(b)[:, None] * k

        def count(classes: Ints) -> Ints:
            return np.bincount(classes.ravel(), minlength=b * k).reshape(b, k)

        is_right = labels == predicted
        hits, support = count((row + labels)[is_right]), count(row + labels)
        n_predicted = count(row + predicted)
        precision = np.where(support > 0, np.nan_to_num(m.ratio(hits, n_predicted)), np.nan)
        shares = {
            "accuracy": is_right.mean(axis=1),
            "macro_precision": _nan_mean(precision.T),
            "macro_recall": _nan_mean(m.ratio(hits, support).T),
            "macro_f1": _nan_mean(m.ratio(2 * hits, n_predicted + support).T),
        }
        if self._in_top_k is not None:
            in_top_k = self._in_top_k[resamples]
            in_top_k[where] = is_wrong == 0
            shares["top_k_accuracy"] = in_top_k.mean(axis=1)
        return shares


def _roc_influence(plan: m.RankPlan) -> Doubles:
    """Return the placement values of DeLong et al. (1988), scaled to influences, ``(N,)``."""
    n, n_positive = len(plan.order), len(plan.positives)
    n_negative = n - n_positive
    tied_or_above = plan.down_to - plan.positives_down_to + plan.above - plan.positives_above
    of_positives = 1.0 - tied_or_above / (2.0 * n_negative)
    area = float(of_positives.mean())
    is_negative = np.ones(n, dtype=bool)
    is_negative[plan.positives] = False
    half = _half_positives_above(plan)
    result = np.zeros(n)
    result[plan.positives] = (of_positives - area) * n / n_positive
    negatives = plan.order[is_negative[plan.order]]
    result[negatives] = (half[is_negative[plan.order]] / n_positive - area) * n / n_negative
    return result


def _half_positives_above(plan: m.RankPlan) -> Doubles:
    """Return, by place in the order, the positives above it plus half of those tied, ``(N,)``."""
    n = len(plan.order)
    twice = np.zeros(n + 1)
    # A positive counts fully below its group of ties and half within it.
    np.add.at(twice, plan.above, 1.0)
    np.add.at(twice, plan.down_to, 1.0)
    return np.cumsum(twice[:n]) / 2.0


def _pr_influence(plan: m.RankPlan) -> Doubles:
    """Return the derivative of the average precision by each image's weight, times N, ``(N,)``."""
    n, n_positive = len(plan.order), len(plan.positives)
    down_to = plan.down_to.astype(np.float64)
    precision = plan.positives_down_to / down_to
    average = float(precision.mean())
    # An image above a positive adds to the images it is compared with (and, if positive, the hits).
    per_image, per_hit = precision / down_to, 1.0 / down_to

    def from_below(values: Doubles, places: Ints) -> Doubles:
        """Sum the values of the positives whose group of ties ends at or after each place."""
        ends = np.zeros(n + 1)
        np.add.at(ends, plan.down_to, values)
        tail = np.cumsum(ends[::-1])[::-1]
        return np.asarray(tail[places])

    places = np.arange(1, n + 1)
    result = np.zeros(n)
    result[plan.order] = -from_below(per_image, places)
    gain = from_below(per_hit, plan.above + 1) + precision - average
    result[plan.positives] += gain
    return result * n / n_positive


def _draws(n_images: int, samples: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Yield image indices ``(b, N)``, a bounded number of resamples at a time."""
    at_once = max(1, _CHUNK_ENTRIES // n_images)
    for start in range(0, samples, at_once):
        yield rng.integers(0, n_images, (min(at_once, samples - start), n_images))


def _image_counts(resamples: Ints) -> NDArray[np.float32]:
    """Return how often each image stands in each resample, ``(N, b)`` from indices ``(b, N)``.

    Resamples run along the last axis, so that sums over sorted images are sums of whole rows.
    """
    b, n_images = resamples.shape
    cells = resamples * b + np.arange(b)[:, None]
    counts = np.bincount(cells.ravel(), minlength=b * n_images)
    return counts.reshape(n_images, b).astype(np.float32)


def _nan_mean(values: Doubles) -> Doubles:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is."""
    is_number = ~np.isnan(values)
    return m.ratio(np.where(is_number, values, 0.0).sum(axis=0), is_number.sum(axis=0))
