"""The metrics of an evaluation: one module each, found by its name, which gates may bound.

A module holds ``MORE_IS_BETTER`` and ``compute(images)``, which raises ``UndefinedMetricError``
where the metric has no value. Their shared arithmetic is ``metric_functions``.
"""

from dataclasses import dataclass
from functools import cached_property

from cv_factory.config.plugins import load_plugin, plugin_names
from cv_factory.evaluation.metric_functions import Floats, Ints, confusion_matrix

#: The package whose modules are plug-ins; ``cv_factory.code_fingerprint`` reads it.
PLUGINS = "cv_factory.evaluation.metrics"


@dataclass(frozen=True)
class ScoredImages:
    """Input of a metric: labels and probabilities.

    Attributes:
        labels: True classes, int64 ``(N,)``.
        probabilities: Float ``(N, K)``.
        top_k: Of the top-k accuracy.
        n_bins: Bins of the calibration error.
    """

    labels: Ints
    probabilities: Floats
    top_k: int
    n_bins: int

    @cached_property
    def confusion(self) -> Ints:
        """Counts by true and predicted class, int64 ``(K, K)``."""
        predicted = self.probabilities.argmax(axis=1)
        return confusion_matrix(self.labels, predicted, self.probabilities.shape[1])


def metric_names() -> tuple[str, ...]:
    """Return the names of all metrics: first those of which more is better."""
    return tuple(sorted(plugin_names(PLUGINS), key=lambda name: (not more_is_better(name), name)))


def more_is_better(name: str) -> bool:
    """Whether a higher value of the metric is the better one."""
    is_better: bool = load_plugin(PLUGINS, name, "metric").MORE_IS_BETTER
    return is_better


def compute_metric(name: str, images: ScoredImages) -> float:
    """Compute one metric.

    Raises:
        UndefinedMetricError: It has no value on these images.
    """
    value: float = load_plugin(PLUGINS, name, "metric").compute(images)
    return value
