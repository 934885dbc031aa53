"""The section ``gates``: conditions that a model must meet to be staged."""

from pydantic import Field, model_validator

from cv_factory.config.data import SourceName
from cv_factory.config.metric_names import (
    DATA_FIGURES,
    GateMetric,
    is_bounded_below,
    is_metric,
)
from cv_factory.config.section import Section
from cv_factory.config.validation import ExpectationName

_BOUNDS = ("min", "max", "max_drop_vs_production", "min_gain_vs_production")


class GateConfig(Section):
    """One condition that a model must meet to be staged; exactly one bound is given."""

    metric: GateMetric
    min: float | None = Field(
        None, ge=0.0, le=1.0, description="absolute: the metric must be at least this"
    )
    max: float | None = Field(
        None, ge=0.0, description="absolute: the loss, cost or count must be at most this"
    )
    max_drop_vs_production: float | None = Field(
        None,
        ge=0.0,
        description="relative: fails where the metric lies further below production's, on the same "
        "test images, and the difference is beyond chance",
    )
    min_gain_vs_production: float | None = Field(
        None,
        ge=0.0,
        description="relative: fails unless the metric lies this far above production's, on the "
        "same test images, and the difference is beyond chance",
    )
    slice: str | None = Field(
        None,
        min_length=1,
        description="COLUMN=VALUE (class=cat), or COLUMN for the worst slice of it",
    )
    source: SourceName | None = Field(
        None,
        description="only for images of this data.source, whose difficulty the bound presumes; "
        "null: for any",
    )
    explained: dict[ExpectationName, str] = Field(
        {}, description="data_errors, data_warnings: expectations that may fail, with the reason"
    )

    @model_validator(mode="after")
    def _check_bound(self) -> "GateConfig":
        bounds = [name for name in _BOUNDS if getattr(self, name) is not None]
        if len(bounds) != 1:
            raise ValueError(f"give exactly one of {', '.join(map(repr, _BOUNDS))}")
        more_is_better = is_bounded_below(self.metric)
        if bounds[0].endswith("vs_production") and not is_metric(self.metric):
            raise ValueError(f"{self.metric} is not compared with production; give 'min' or 'max'")
        if bounds[0] in ("min", "max") and (bounds[0] == "min") != more_is_better:
            right = "min" if more_is_better else "max"
            raise ValueError(f"{self.metric} is bounded by {right!r}, not by {bounds[0]!r}")
        if self.slice is not None and self.metric not in ("accuracy", "log_loss"):
            raise ValueError("on slices, 'accuracy' and 'log_loss' are measured")
        if self.explained and self.metric not in DATA_FIGURES:
            raise ValueError(f"'explained' belongs to {' and '.join(DATA_FIGURES)}")
        return self

    @property
    def bound(self) -> tuple[str, float]:
        """Name and value of the one bound."""
        name = next(name for name in _BOUNDS if getattr(self, name) is not None)
        return name, float(getattr(self, name))
