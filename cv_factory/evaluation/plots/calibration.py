"""Reliability diagrams, as PNG."""

from collections.abc import Sequence

import numpy as np

from cv_factory.evaluation.plots.style import BLUE, GREY, draw_once, render_png, set_heading


@draw_once
def reliability(
    bins: Sequence[tuple[float, float]],
    confidence: Sequence[float],
    accuracy: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    n_images: Sequence[int],
) -> bytes:
    """Draw accuracy over confidence, and how many images lie in each bin of confidence.

    Args:
        bins: Low and high end of each bin that holds images.
        confidence: Mean confidence in each.
        accuracy: Share of right answers in each.
        intervals: Of the accuracy.
        n_images: In each.

    Returns:
        PNG.
    """
    with render_png(6.2, 5.2) as (figure, png):
        axis, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="calibrated")
        low, high = (np.array([pair[i] for pair in intervals]) for i in (0, 1))
        axis.vlines(confidence, low, high, color=BLUE, linewidth=2, alpha=0.45)
        axis.plot(confidence, accuracy, "o-", color=BLUE, linewidth=1.2, label="predictor")
        axis.set(ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
        axis.grid()
        axis.legend(loc="upper left")
        left, right = (np.array([pair[i] for pair in bins]) for i in (0, 1))
        below.bar(left, n_images, right - left, align="edge", color=BLUE, edgecolor="white")
        below.set(xlabel="confidence", ylabel="images")
        set_heading(figure, "Reliability")
    return png.getvalue()
