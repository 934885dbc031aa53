"""Statistics of predictions whose drift is measured, fitted on the validation outputs alone.

The test outputs are the reference and the predictions the stream: both must be equally foreign to
what is fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cv_factory.inference.reference import STATISTICS, LabeledOutputs, Reference
from cv_factory.monitoring.conformal import Bins, build_bets, fit_edges, log_capitals, to_bins
from cv_factory.monitoring.window import Window

Floats = npt.NDArray[np.floating[Any]]
#: Of classes that have a statistic of their own: the most frequent ones.
_MAX_CLASSES = 100
#: Outputs whose statistics are in memory at once.
_CHUNK = 2**15
#: Capital by group of statistics, in parts.
_WEIGHTS = {"output": 6, "class": 3, "probability": 8, "image": 2, "feature": 2}
#: Statistics of an image's pixels; its size is the detector ``input_quality``'s.
_PIXEL_STATISTICS = ("brightness", "contrast", "sharpness")


@dataclass(frozen=True, eq=False)
class Drift:
    """Evidence of drift.

    Attributes:
        names: Of the S statistics.
        log_evidence: Logarithm of the weighted mean of all capitals after each block.
        log_capitals: Highest logarithm of each statistic's capital, float64 ``(S,)``.
        smallest_weight: Of a statistic in the mean.
    """

    names: tuple[str, ...]
    log_evidence: npt.NDArray[np.float64]
    log_capitals: npt.NDArray[np.float64]
    smallest_weight: float


def measure_drift(reference: Reference, stream: Window, max_features: int, seed: int) -> Drift:
    """Return the evidence against predictions that are like the test outputs.

    Args:
        reference: Held-out outputs.
        stream: At least one prediction, no repeats.
        max_features: Features of the greatest variance, at most.
        seed: Of the order of equal values.
    """
    statistics = DriftStatistics(reference.validation, reference.class_names, max_features)
    looks = log_capitals(
        statistics.bin(reference.test),
        statistics.bin(stream),
        build_bets(statistics.shares),
        np.random.default_rng(seed),
    )
    weighted = np.logaddexp.reduce(looks + np.log(statistics.weights), axis=1)
    smallest = float(statistics.weights.min())
    return Drift(statistics.names, weighted, looks.max(axis=0), smallest)


class DriftStatistics:
    """Statistics fitted on held-out outputs.

    Attributes:
        names: Of the S statistics.
        shares: Share of ones of those that are 0 or 1; NaN for others, float64 ``(S,)``.
        weights: Of their capitals, which sum to 1: ``_WEIGHTS`` of each group, equal within it.
        edges: Bounds of bins, ``(N_BINS - 1, S)``.
    """

    def __init__(
        self, fitting: LabeledOutputs, class_names: Sequence[str], max_features: int
    ) -> None:
        n, n_classes = fitting.probabilities.shape
        predicted, variances = fitting.predicted, fitting.features.var(axis=0)
        counts = np.bincount(predicted, minlength=n_classes)
        self._classes = np.sort(np.argsort(-counts, kind="stable")[:_MAX_CLASSES])
        self._features = np.sort(np.argsort(-variances, kind="stable")[:max_features])
        self._means = np.tile(fitting.features.mean(axis=0, dtype=np.float64), (n_classes, 1))
        for label in np.flatnonzero(counts):
            self._means[label] = fitting.features[predicted == label].mean(axis=0)
        self._spreads = (fitting.features - self._means[predicted]).std(axis=0) + 1e-9
        groups = {
            "output": ("confidence", "doubt", "distance"),
            "class": tuple(f"class {class_names[i]}" for i in self._classes),
            "probability": tuple(f"probability of {class_names[i]}" for i in self._classes),
            "image": _PIXEL_STATISTICS,
            "feature": tuple(f"feature {i}" for i in self._features),
        }
        groups = {group: names for group, names in groups.items() if names}
        self.names = tuple(name for names in groups.values() for name in names)
        self.weights = np.concatenate(
            [np.full(len(names), _WEIGHTS[group] / len(names)) for group, names in groups.items()]
        )
        self.weights /= self.weights.sum()
        self.shares = np.full(len(self.names), np.nan)
        is_class = np.char.startswith(self.names, "class ")
        # Neither 0 nor 1, however rare the class.
        self.shares[is_class] = (counts[self._classes] + 0.5) / (n + 1)
        values = self.measure(fitting.probabilities, fitting.features, fitting.statistics)
        self.edges = np.where(np.isfinite(self.shares), 0.5, fit_edges(np.nan_to_num(values)))

    def bin(self, outputs: LabeledOutputs | Window) -> Bins:
        """Return the bins of the statistics of N outputs, int8 ``(N, S)``."""
        bins = np.empty((len(outputs), len(self.names)), np.int8)
        parts = outputs.probabilities, outputs.features, outputs.statistics
        for start in range(0, len(bins), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            bins[chunk] = to_bins(self.measure(*(part[chunk] for part in parts)), self.edges)
        return bins

    def measure(self, probabilities: Floats, features: Floats, statistics: Floats) -> Floats:
        """Return the statistics of N outputs, float32 ``(N, S)``."""
        predicted = probabilities.argmax(axis=1)
        distances = np.square((features - self._means[predicted]) / self._spreads).sum(axis=1)
        of_pixels = statistics[:, [STATISTICS.index(name) for name in _PIXEL_STATISTICS]]
        columns = (
            probabilities.max(axis=1)[:, None],
            _measure_doubt(probabilities)[:, None],
            distances[:, None],
            predicted[:, None] == self._classes,
            probabilities[:, self._classes],
            of_pixels,
            features[:, self._features],
        )
        return np.concatenate(columns, axis=1, dtype=np.float32)


def _measure_doubt(probabilities: Floats) -> Floats:
    """Return the mean logarithm of the other classes' probabilities, ``(N,)``."""
    logs = np.log(np.maximum(probabilities, 1e-12))
    others: Floats = (logs.sum(axis=1) - logs.max(axis=1)) / max(1, logs.shape[1] - 1)
    return others
