"""Accuracy under corruptions, as PNG."""

from collections.abc import Mapping, Sequence

import numpy as np

from cv_factory.evaluation.plots.style import BLUE, draw_once, render_png, set_heading, shorten


@draw_once
def robustness(accuracies: Mapping[str, Sequence[float]], overall: float | None) -> bytes:
    """Draw accuracy over the severity of each corruption, one small plot each.

    Args:
        accuracies: By corruption, accuracy at severity 1, 2 and 3.
        overall: Accuracy on images as they are, drawn as severity 0.

    Returns:
        PNG.
    """
    columns = 4
    rows = max(1, -(-len(accuracies) // columns))
    with render_png(8.6, 1.9 * rows + 0.5) as (figure, png):
        axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
        for axis, (name, values) in zip(axes, accuracies.items(), strict=False):
            start = [] if overall is None else [overall]
            severities = np.arange(1 - len(start), len(values) + 1)
            axis.plot(severities, [*start, *values], "o-", color=BLUE, markersize=4)
            axis.fill_between(severities, [*start, *values], color=BLUE, alpha=0.1)
            axis.set_title(shorten(name, 22), fontsize=10)
            axis.set(ylim=(0, 1.03))
            axis.set_xticks(severities)
            axis.grid(axis="y")
        for axis in axes[len(accuracies) :]:
            axis.set_axis_off()
        set_heading(figure, "Accuracy by severity of corruption (0: images as they are)")
    return png.getvalue()
