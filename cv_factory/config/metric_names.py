"""The names that a gate may bound: metrics by plug-in, and figures about running and data."""

from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import AfterValidator, WithJsonSchema

from cv_factory.config.plugins import load_plugin, plugin_names
from cv_factory.config.suggestion import suggest

_PACKAGE = "cv_factory.evaluation.metrics"
#: Mean accuracy over all corruptions, and share of images whose class survives a mirror image.
_ROBUSTNESS_FIGURES = ("corruption_accuracy", "flip_agreement")
#: Measured by the evaluation beside the metrics; less is better.
_COST_FIGURES = (
    "latency_ms_batch_1_p50",
    "latency_ms_batch_1_p95",
    "latency_ms_batch_32_p50",
    "latency_ms_batch_32_p95",
    "size_mb",
    "parameters",
    "operations",
    "accuracy_lost_to_precision",
    "unfamiliar_share",
)
#: Unmet expectations about the data, by severity.
DATA_FIGURES = ("data_errors", "data_warnings")


def gate_metrics() -> tuple[str, ...]:
    """Return everything that a gate may bound."""
    return (*plugin_names(_PACKAGE), *_ROBUSTNESS_FIGURES, *_COST_FIGURES, *DATA_FIGURES)


def is_metric(name: str) -> bool:
    """Whether it is computed from labels and probabilities, and so compared with production's."""
    return name in plugin_names(_PACKAGE)


def is_bounded_below(name: str) -> bool:
    """Whether more of it is better."""
    if is_metric(name):
        return bool(load_plugin(_PACKAGE, name, "metric").MORE_IS_BETTER)
    return name in _ROBUSTNESS_FIGURES


def _check(name: str) -> str:
    if name not in gate_metrics():
        raise ValueError(f"there is no metric {name!r}. {suggest(name, gate_metrics())}")
    return name


if TYPE_CHECKING:
    GateMetric: TypeAlias = str
else:
    GateMetric = Annotated[
        str,
        AfterValidator(_check),
        WithJsonSchema({"type": "string", "enum": list(gate_metrics())}),
    ]
