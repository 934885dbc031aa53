"""Precision, recall and F1 by class, as PNG."""

from collections.abc import Sequence

import numpy as np

from cv_factory.evaluation.plots.fonts import writable_names
from cv_factory.evaluation.plots.style import (
    BLUE,
    GREEN,
    LINE,
    MAX_ROWS,
    ORANGE,
    draw_once,
    get_axis_start,
    render_png,
    set_heading,
    shorten,
)


@draw_once
def per_class_bars(
    class_names: Sequence[str],
    precision: Sequence[float | None],
    recall: Sequence[float | None],
    f1: Sequence[float | None],
) -> bytes:
    """Draw precision, recall and F1 of each class, the lowest F1 first; above 50 classes those.

    Args:
        class_names: K names.
        precision: K values or None.
        recall: K values or None.
        f1: K values or None; a class without F1 stands last.

    Returns:
        PNG.
    """
    order = sorted(range(len(class_names)), key=lambda i: (_or(f1[i], 2.0), i))[:MAX_ROWS]
    defined = [
        v for values in (precision, recall, f1) for i in order if (v := values[i]) is not None
    ]
    start = get_axis_start(min(defined, default=0.0))
    with render_png(7.5, 0.3 * len(order) + 1.6) as (figure, png):
        axis = figure.subplots()
        place = np.arange(len(order))
        axis.hlines(place, start, 1.0, color=LINE, linewidth=0.8)
        for label, values, color, marker, size in (
            ("precision", precision, GREEN, "<", 50),
            ("recall", recall, ORANGE, ">", 50),
            ("F1", f1, BLUE, "o", 60),
        ):
            x = [_or(values[i], np.nan) for i in order]
            axis.scatter(x, place, s=size, color=color, marker=marker, label=label, zorder=3)
        names = writable_names(class_names)
        axis.set_yticks(place, [shorten(names[i], 24) for i in order])
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(start, 1.0 + 0.02 * (1.0 - start))
        axis.set_ylim(len(order) - 0.4, -0.6)
        axis.spines["left"].set_visible(False)
        hidden = len(class_names) - len(order)
        more = f" ({hidden} more not shown)" if hidden else ""
        set_heading(figure, f"Precision, recall and F1 by class, lowest F1 first{more}")
        axis.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, handletextpad=0.1)
    return png.getvalue()


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
