"""Figures of a window over time, and its labels by day."""

from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.inference.reference import LabeledOutputs
from cv_factory.monitoring.estimators import estimate_accuracy
from cv_factory.monitoring.report import Coverage, TimeBucket
from cv_factory.monitoring.window import Window

_MAX_BUCKETS = 40
#: Predictions below which a mean says little.
_MIN_BUCKET = 25


def compute_timeline(
    window: Window, estimator: str | None, validation: LabeledOutputs | None
) -> tuple[TimeBucket, ...]:
    """Return figures of at most 40 spans of time with equally many predictions, oldest first.

    Equal numbers make equally certain means, however the traffic changes.

    Args:
        window: In order of time.
        estimator: Estimates the accuracy of each span; None for none.
        validation: What the estimator is fitted on; None for none.
    """
    n = len(window)
    n_buckets = min(_MAX_BUCKETS, max(1, n // _MIN_BUCKET)) if n else 0
    edges = np.linspace(0, n, n_buckets + 1).astype(int)
    buckets = []
    for low, high in pairwise(edges):
        part = window.select(slice(low, high))
        estimate = None
        if estimator is not None and validation is not None:
            estimate = estimate_accuracy(estimator, validation, part.probabilities)
        buckets.append(_describe(part, estimate))
    return tuple(buckets)


def _describe(part: Window, estimate: float | None) -> TimeBucket:
    hits = (part.predicted == part.labels)[part.has_label]
    counts = np.bincount(part.predicted, minlength=len(part.class_names))
    return TimeBucket(
        start=format_time(part.rows["time"].iloc[0]),
        n_predictions=len(part),
        n_labels=len(hits),
        confidence=float(part.probabilities.max(axis=1).mean()),
        class_shares=tuple((counts / len(part)).tolist()),
        estimated_accuracy=estimate,
        accuracy=float(hits.mean()) if len(hits) else None,
        statistics=compute_means(part.statistics),
    )


def compute_means(statistics: npt.NDArray[np.float32]) -> tuple[float | None, ...]:
    """Return the mean of each column, float32 ``(N, k)``; None for one that is NaN throughout."""
    measured = (column[~np.isnan(column)] for column in statistics.T)
    return tuple(float(m.mean(dtype=np.float64)) if len(m) else None for m in measured)


def compute_coverage(window: Window) -> tuple[Coverage, ...]:
    """Return the labels of a window by day and version, the oldest first."""
    times = window.rows["time"].to_numpy("datetime64[D]")
    days, day = np.unique(times, return_inverse=True)
    version, versions = pd.factorize(window.rows["version"].fillna("unknown"), sort=True)
    key = day * max(1, len(versions)) + version
    n_predictions = np.bincount(key)
    n_labels = np.bincount(key[window.has_label], minlength=len(n_predictions))
    return tuple(
        Coverage(day, version, n, n_labeled)
        for (day, version), n, n_labeled in zip(
            product(map(_format_day, days), map(str, versions)),
            n_predictions.tolist(),
            n_labels.tolist(),
            strict=False,
        )
        if n
    )


def _format_day(day: np.datetime64) -> str:
    return "unknown" if np.isnat(day) else str(day)


def format_time(time: pd.Timestamp | pd.api.typing.NaTType) -> str | None:
    """Return a time in UTC as ISO 8601, to the second; None for a missing one."""
    return None if isinstance(time, pd.api.typing.NaTType) else time.isoformat(timespec="seconds")
