"""Parts of the test images that a person may worry about, and how well each of them does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cv_factory.data.additional_images import ORIGIN
from cv_factory.evaluation.intervals import wilson
from cv_factory.evaluation.metric_functions import Doubles, EvaluationError, Ints

#: Slices that are no columns of the manifest themselves.
_CLASS, _SIZE = "class", "size"
# A column of text with more different values than this names images, not groups of them.
_MOST_VALUES = 50


@dataclass(frozen=True)
class SliceMetrics:
    """Metrics of one slice.

    Attributes:
        column: What it was cut by, such as ``brightness``.
        value: Which part, such as ``0.21 to 0.34``.
        n_images: Its size.
        accuracy: Share of right answers.
        low: Lower end of its interval (Wilson).
        high: Upper end.
        log_loss: Mean negative log probability of the true class.
    """

    column: str
    value: str
    n_images: int
    accuracy: float
    low: float
    high: float
    log_loss: float

    @property
    def name(self) -> str:
        """``COLUMN=VALUE``, as a gate names it."""
        return f"{self.column}={self.value}"


def assign_slices(
    rows: pd.DataFrame,
    labels: Ints,
    class_names: Sequence[str],
    columns: Sequence[str],
    n_quantiles: int,
) -> dict[str, tuple[str, ...]]:
    """Return for each column the part that each image belongs to.

    Args:
        rows: Manifest rows of the N images.
        labels: True classes, int64 ``(N,)``.
        class_names: K names.
        columns: ``class``, ``size`` (original width times height) or columns of the manifest.
        n_quantiles: Into how many parts of equal size numbers are cut.

    Returns:
        By column, N values; one in which all images agree is left out, but the origin.

    Raises:
        EvaluationError: The manifest has no such column, or it has a value for nearly every image.
    """
    parts = {}
    for column in columns:
        if column == _CLASS:
            values = [class_names[label] for label in labels]
        else:
            values = _parts(_column(rows, column), column, n_quantiles)
        if len(set(values)) > 1 or column == ORIGIN:
            parts[column] = tuple(values)
    return parts


def measure_slices(
    slices: Mapping[str, Sequence[str]],
    is_right: NDArray[np.bool_],
    losses: Doubles,
    confidence: float,
) -> tuple[SliceMetrics, ...]:
    """Measure every slice, the worst accuracy first (of equals, the larger slice).

    Args:
        slices: By column, N values.
        is_right: Bool ``(N,)``.
        losses: Each image's log loss, float64 ``(N,)``.
        confidence: Of the intervals.
    """
    measured = []
    for column, values in slices.items():
        codes, names = pd.factorize(np.asarray(values, dtype=object), sort=True)
        counts = np.bincount(codes)
        hits = np.bincount(codes, weights=is_right).astype(np.int64)
        loss = np.bincount(codes, weights=losses) / counts
        for i, name in enumerate(names):
            n, right = int(counts[i]), int(hits[i])
            low, high = wilson(right, n, confidence)
            row = SliceMetrics(column, str(name), n, right / n, low, high, float(loss[i]))
            measured.append(row)
    return tuple(sorted(measured, key=lambda s: (s.accuracy, -s.n_images, s.name)))


def _column(rows: pd.DataFrame, column: str) -> pd.Series:
    if column == _SIZE:
        return rows["width"].astype("int64") * rows["height"].astype("int64")
    if column not in rows.columns:
        available = ", ".join([_CLASS, _SIZE, *(str(name) for name in rows.columns)])
        raise EvaluationError(
            f"evaluate.slices names {column!r}, which the manifest does not have; it has: "
            f"{available}."
        )
    return rows[column]


def _parts(values: pd.Series, column: str, n_quantiles: int) -> list[str]:
    """Cut numbers into quantiles; take text as it is."""
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    n_different = values.nunique(dropna=False)
    if is_number and n_different > n_quantiles:
        codes, edges = _quantiles(values.to_numpy(dtype=np.float64), n_quantiles)
        names = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
        return [names[code] if code >= 0 else "unknown" for code in codes]
    if n_different > max(_MOST_VALUES, n_quantiles):
        raise EvaluationError(
            f"evaluate.slices names {column!r}, which has {n_different} different values among the "
            f"test images: at most {_MOST_VALUES} make slices."
        )
    return ["unknown" if pd.isna(value) else str(value) for value in values]


def _quantiles(values: Doubles, n: int) -> tuple[Ints, list[float]]:
    """Return each value's quantile int64 ``(N,)`` (-1 for NaN), and the edges between them."""
    numbers = values[~np.isnan(values)]
    edges = np.unique(np.quantile(numbers, np.linspace(0.0, 1.0, n + 1)))
    codes = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return np.where(np.isnan(values), -1, codes).astype(np.int64), edges.tolist()
