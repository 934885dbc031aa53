"""Accuracy in the field from labels that were asked for with known inclusion probabilities."""

from collections.abc import Sequence

import numpy as np

from cv_factory.evaluation.intervals import wilson
from cv_factory.monitoring.labels import MODEL_SOURCE, Frame
from cv_factory.monitoring.report import LabeledAccuracy
from cv_factory.monitoring.window import Window


def estimate_accuracy(
    window: Window, frames: Sequence[Frame], confidence: float = 0.95
) -> LabeledAccuracy:
    """Estimate the accuracy of a window, without bias by what was chosen to be labelled.

    The share of errors is the Horvitz-Thompson (1952) estimate over distinct images: each error
    counts 1 / its inclusion probability. Where images that were asked for have no label, those of
    their stratum count for them. The interval is Wilson's for the effective number of labels
    (Korn and Graubard 1998), that is with the estimate's own variance.

    Labels of models do not count.

    Args:
        window: Joined with its labels; of one version, for its accuracy.
        frames: What the samples were drawn from; predictions elsewhere are left out.
        confidence: Of the interval.
    """
    distinct = window.distinct()
    in_frame = np.zeros(len(distinct), bool)
    for frame in frames:
        in_frame |= frame.contains(distinct.rows)
    distinct = distinct.select(in_frame)
    probability = distinct.rows["inclusion_probability"].to_numpy()
    is_asked = ~np.isnan(probability)
    by_model = distinct.rows["label_source"].str.startswith(MODEL_SOURCE).fillna(False)
    counted = is_asked & distinct.has_label & ~by_model.to_numpy(bool)
    n, n_asked, n_labeled = len(distinct), int(is_asked.sum()), int(counted.sum())
    strata = distinct.rows["stratum"].astype(object).to_numpy()
    reason = _find_gap(strata[is_asked], strata[counted], n)
    if reason:
        return LabeledAccuracy(n, n_asked, n_labeled, confidence=confidence, reason=reason)
    probability = probability.copy()
    for stratum in set(strata[counted]):
        of_stratum = strata == stratum
        probability[of_stratum] *= (counted & of_stratum).sum() / (is_asked & of_stratum).sum()
    weights = 1.0 / probability[counted]
    is_error = distinct.predicted[counted] != distinct.labels[counted]
    errors = min(1.0, float(weights[is_error].sum()) / n)
    variance = float((weights * (weights - 1.0))[is_error].sum()) / n**2
    n_effective = weights.sum() ** 2 / (weights**2).sum()
    if n_labeled == n and weights.max() == 1.0:  # every image was certain to be asked for
        low, high = errors, errors
    else:
        if variance > 0 and 0 < errors < 1:
            n_effective = min(n_labeled, errors * (1 - errors) / variance)
        low, high = wilson(errors * n_effective, n_effective, confidence)
    return LabeledAccuracy(n, n_asked, n_labeled, 1 - errors, 1 - high, 1 - low, confidence)


def _find_gap(asked: np.ndarray, labeled: np.ndarray, n: int) -> str:
    """Return why labels say nothing about a window; empty if they do."""
    if not n or not len(asked):
        return "no prediction of this window was chosen to be labelled: run.py labels queue"
    missing = sorted(set(asked) - set(labeled))
    if missing:
        return f"of the images that were to be labelled, none of {', '.join(missing)} has a label"
    return ""
