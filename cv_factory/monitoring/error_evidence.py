"""Evidence that the error on labelled predictions exceeds what the test images let expect.

Each label multiplies a capital by 1 + b * w * (error - bound), which no strategy b grows on average
while the error is at most ``bound``, whatever the sampling: ``w`` is the least probability with
which an image of the same time could be asked for, by that with which this one was (Horvitz and
Thompson 1952). It is known before any label, and never above 1: weights by the largest one so far
would depend on which labels came.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cv_factory.inference.reference import LabeledOutputs
from cv_factory.monitoring.conformal import JumpingCapital
from cv_factory.monitoring.share_evidence import alternatives
from cv_factory.monitoring.window import Window

#: Labels between two looks.
_ROUND = 2
#: Part of the capital, and of the doubt about the reference, for the error over all classes.
_OVERALL = 0.9


@dataclass(frozen=True)
class ErrorRise:
    """Evidence of a rise.

    Attributes:
        evidence: Highest weighted mean of the capitals since the first label.
        error: Of the labelled predictions, weighted by how they were sampled; NaN without any.
        bound: That the capital is bet against.
        weight: Of the capital over all classes in the mean.
        by_class: By class with labels: error, bound, evidence and number of labels.
        worst_classes: Classes whose own capital exceeds 20, highest first, at most 3.
    """

    evidence: float
    error: float
    bound: float
    weight: float
    by_class: Mapping[int, Mapping[str, float]]
    worst_classes: tuple[int, ...]


def select_labels(window: Window, labels: Literal["sampled", "all"]) -> tuple[Window, int]:
    """Return the predictions whose labels count, in the order of their labels; and how many do not.

    Labels of models never count, nor do repeats of an image. One of a class that the model does not
    know counts: whatever was predicted is wrong.
    """
    labeled = window.select(window.has_label)
    by_model = labeled.rows["label_source"].str.startswith("model:").fillna(False)
    counted = labeled.select(~by_model.to_numpy(bool)).distinct()
    is_sampled = counted.rows["inclusion_probability"].notna().to_numpy(bool)
    if labels == "sampled" and is_sampled.any():
        counted = counted.select(is_sampled)
    times = counted.rows["label_time"].dt.tz_localize(None).to_numpy()
    order = np.argsort(times, kind="stable")
    ordered = Window(
        counted.rows.iloc[order],
        counted.probabilities[order],
        counted.features[order],
        counted.class_names,
    )
    return ordered, len(labeled) - len(ordered)


def measure_error_rise(
    test: LabeledOutputs, labeled: Window, confidence: float, tolerance: float
) -> ErrorRise:
    """Return the evidence that the error lies above the reference's.

    Args:
        test: Held-out outputs.
        labeled: Predictions with labels, in the order of their labels.
        confidence: Of all bounds together.
        tolerance: Added to each bound.
    """
    n_classes = test.probabilities.shape[1]
    doubt = 1 - confidence
    is_wrong, was_wrong = labeled.predicted != labeled.labels, test.predicted != test.labels
    probability = labeled.rows["inclusion_probability"].fillna(1.0).to_numpy(np.float64)
    weights, stakes = 1 / probability, _stakes(labeled, probability)
    bound = _bound(was_wrong, _OVERALL * doubt, tolerance)
    overall = _log_capital(is_wrong, stakes, bound)
    share = (1 - _OVERALL) / n_classes
    total = np.full(len(overall), math.log(_OVERALL)) + overall
    rest, by_class, peaks = n_classes * share, {}, {}
    for label in np.unique(labeled.labels[labeled.labels >= 0]):
        rows = labeled.labels == label
        limit = _bound(was_wrong[test.labels == label], share * doubt, tolerance)
        capital = _log_capital(is_wrong[rows], stakes[rows], limit)
        total = np.logaddexp(total, math.log(share) + _spread(capital, rows))
        rest -= share
        peaks[int(label)] = float(capital.max())
        by_class[int(label)] = {
            "error": float(np.average(is_wrong[rows], weights=weights[rows])),
            "bound": limit,
            "evidence": math.exp(min(peaks[int(label)], 700.0)),
            "n": int(rows.sum()),
        }
    if rest > 1e-12:
        total = np.logaddexp(total, math.log(rest))
    worst = sorted((label for label in peaks if peaks[label] > math.log(20)), key=peaks.__getitem__)
    return ErrorRise(
        evidence=math.exp(min(float(total.max()), 700.0)),
        error=float(np.average(is_wrong, weights=weights)) if len(labeled) else math.nan,
        bound=bound,
        weight=_OVERALL,
        by_class=by_class,
        worst_classes=tuple(reversed(worst))[:3],
    )


def _bound(was_wrong: npt.NDArray[np.bool_], doubt: float, tolerance: float) -> float:
    """Return Wilson's upper limit of a share plus the tolerance, in (0, 1)."""
    n, z = len(was_wrong), NormalDist().inv_cdf(1 - doubt)
    if n == 0:
        return 0.999
    share = float(was_wrong.mean())
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return min((share + z * z / (2 * n) + reach) / (1 + z * z / n) + tolerance, 0.999)


def _stakes(labeled: Window, probability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the weight of each label, in (0, 1], float64 ``(N,)``.

    Where the design is not known, the least probability among the labels stands for it.
    """
    least = labeled.rows["uniform_probability"].fillna(probability.min(initial=1.0)).to_numpy()
    stakes: npt.NDArray[np.float64] = np.minimum(least / probability, 1.0)
    return stakes


def _log_capital(
    is_wrong: npt.NDArray[np.bool_], stakes: npt.NDArray[np.float64], bound: float
) -> npt.NDArray[np.float64]:
    """Return the logarithm of the capital before the labels and after each, ``(N + 1,)``."""
    shares = alternatives(bound)
    prior = np.array([0.2, *np.full(len(shares), 0.8 / len(shares))])
    strengths = np.array([0.0, *((shares - bound) / (bound * (1 - bound)))])
    gains = np.log1p(strengths * (stakes * (is_wrong - bound))[:, None])
    capital = JumpingCapital(1, prior)
    looks = np.zeros(len(gains) + 1)
    for start in range(0, len(gains), _ROUND):
        chunk = gains[start : start + _ROUND]
        looks[start + 1 : start + len(chunk)] = looks[start]
        looks[start + len(chunk)] = capital.bet(chunk.sum(axis=0)[None])[0]
    return looks


def _spread(capital: npt.NDArray[np.float64], rows: npt.NDArray[np.bool_]) -> Any:
    """Return the capital of some rows after each of all rows."""
    return capital[np.concatenate([[0], np.cumsum(rows)])]
