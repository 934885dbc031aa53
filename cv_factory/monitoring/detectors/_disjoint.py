"""Disjoint parts of a window, on which tests for a fixed number of predictions explain a drift."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cv_factory.config.detector_section import PredictionDetectorSection

if TYPE_CHECKING:
    from cv_factory.monitoring.window import Window

#: Parts that are tested, the last ones: more would be slow, and weaken the correction.
_MAX_PARTS = 20


class ExplanationConfig(PredictionDetectorSection):
    """Base of detectors that explain by tests on disjoint parts of the window."""

    part_size: int = Field(
        1000, ge=50, le=100_000, description=f"predictions a part; the last {_MAX_PARTS} are tested"
    )
    significance: float = Field(
        0.01, gt=0.0, lt=1.0, description="of all tests together, after Bonferroni's correction"
    )


def split_window(window: "Window", size: int) -> list[slice]:
    """Return the last disjoint parts of a window, in order; all of it if it is smaller."""
    n = len(window)
    ends = [n - i * size for i in range(min(_MAX_PARTS, max(1, n // size)))]
    return [slice(max(0, end - size), end) for end in reversed(ends)]


def describe_parts(
    window: "Window", parts: Sequence[slice], values: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return begin, end and number of predictions of each part beside its values."""
    times = window.rows["time"]
    return [
        {
            "start": str(times.iloc[part.start]),
            "end": str(times.iloc[part.stop - 1]),
            "n": part.stop - part.start,
            **row,
        }
        for part, row in zip(parts, values, strict=True)
    ]
