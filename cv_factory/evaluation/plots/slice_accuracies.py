"""Accuracy by slice of the test images, as PNG."""

from collections.abc import Sequence

import numpy as np

from cv_factory.evaluation.plots.style import (
    BLUE,
    ORANGE,
    draw_once,
    get_axis_start,
    render_png,
    set_heading,
    shorten,
)


@draw_once
def slice_accuracies(
    names: Sequence[str],
    accuracies: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    overall: float | None,
) -> bytes:
    """Draw the accuracy of slices with their intervals, in the given order from the top.

    Args:
        names: n names.
        accuracies: n shares.
        intervals: n pairs of low and high.
        overall: Accuracy on all images, drawn as a line.

    Returns:
        PNG.
    """
    with render_png(7.5, 0.28 * len(names) + 1.4) as (figure, png):
        axis = figure.subplots()
        place = np.arange(len(names))
        low, high = (np.array([pair[i] for pair in intervals]) for i in (0, 1))
        axis.hlines(place, low, high, color=BLUE, linewidth=2, alpha=0.45)
        axis.scatter(accuracies, place, s=42, color=BLUE, zorder=3)
        if overall is not None:
            axis.axvline(overall, color=ORANGE, linewidth=1.2, label=f"all images: {overall:.3f}")
            axis.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0))
        axis.set_yticks(place, [shorten(name, 34) for name in names])
        axis.tick_params(axis="y", length=0)
        start = get_axis_start(float(low.min(initial=1.0)))
        axis.set_xlim(start, 1.0 + 0.02 * (1.0 - start))
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x")
        set_heading(figure, "Accuracy by slice, worst first")
    return png.getvalue()
