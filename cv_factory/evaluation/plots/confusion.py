"""Confusion matrices, as PNG."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cv_factory.evaluation.plots.fonts import writable_names
from cv_factory.evaluation.plots.style import (
    BLUE,
    GREY,
    INK,
    draw_once,
    render_png,
    set_heading,
    shorten,
    use_integer_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: More classes than so many get no matrix, whose cells could not be read.
MAX_MATRIX_CLASSES = 50
_MAX_MATRIX_NUMBERS = 20
_MAX_PAIRS = 20


@draw_once
def confusion_matrix(
    matrix: NDArray[np.int64], class_names: Sequence[str], *, normalized: bool = False
) -> bytes:
    """Draw a confusion matrix: counts, colored by their share of the true class.

    Above 50 classes, where no cell could be read, the pairs confused most often are drawn instead.

    Args:
        matrix: Counts by true class (rows) and predicted class (columns), int64 ``(K, K)``.
        class_names: K names.
        normalized: Write per cent of the true class instead of counts.

    Returns:
        PNG.
    """
    names = writable_names(class_names)
    n = len(names)
    if n > MAX_MATRIX_CLASSES:
        return _confused_pairs(matrix, names)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = min(11.0, max(4.2, 0.5 * n + 1.6))
    # Wide enough for a color bar; errors of a few per cent must show, hence the square root.
    with render_png(size + 1.0, size) as (figure, png):
        axis = figure.subplots()
        picture = axis.imshow(share, cmap="Blues", norm=_square_root_scale())
        _label_axes(axis, [shorten(name, 14) for name in names])
        unit = "% of the true class" if normalized else "images"
        set_heading(figure, f"Confusion matrix ({unit})")
        _write_cells(axis, matrix, share, normalized)
        bar = figure.colorbar(picture, ax=axis, shrink=0.8, aspect=28, pad=0.02)
        ticks = {0.0: "0", 0.05: "5 %", 0.2: "20 %", 0.5: "50 %", 1.0: "100 %"}
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
    return png.getvalue()


def _label_axes(axis: "Axes", names: Sequence[str]) -> None:
    n = len(names)
    is_upright = n <= 12 and max(map(len, names)) <= 4
    axis.set_xticks(range(n), names, rotation=0 if is_upright else 90)
    axis.set_yticks(range(n), names)
    axis.tick_params(length=0, labelsize=9 if n <= _MAX_MATRIX_NUMBERS else 8)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.spines[:].set_visible(False)
    axis.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1.0)
    axis.tick_params(which="minor", length=0)


def _write_cells(
    axis: "Axes", matrix: NDArray[np.int64], share: NDArray[np.float64], normalized: bool
) -> None:
    n = len(matrix)
    for row, column in np.argwhere(matrix > 0):
        is_hit = row == column
        if n > _MAX_MATRIX_NUMBERS and is_hit:
            continue
        percent = 100 * share[row, column]
        rounded = f"{percent:.1f}" if percent < 99.95 else "100"
        axis.text(
            column,
            row,
            rounded if normalized else f"{matrix[row, column]}",
            ha="center",
            va="center",
            fontsize=9 if n <= 12 else 7.5 if n <= _MAX_MATRIX_NUMBERS else 6.5,
            color="white" if share[row, column] > 0.3 else INK,
            fontweight="bold" if is_hit else "normal",
        )


def _square_root_scale() -> Any:
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0.0, vmax=1.0)


def _confused_pairs(matrix: NDArray[np.int64], class_names: Sequence[str]) -> bytes:
    errors = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-errors, axis=None, kind="stable")[:_MAX_PAIRS]
    pairs = [np.unravel_index(cell, errors.shape) for cell in order if errors.flat[cell] > 0]
    labels = [f"{shorten(class_names[r], 22)} → {shorten(class_names[c], 22)}" for r, c in pairs]
    counts = [int(errors[pair]) for pair in pairs]
    with render_png(7.5, 0.3 * max(len(pairs), 3) + 1.3) as (figure, png):
        axis = figure.subplots()
        set_heading(figure, f"Most confused of {len(class_names):,} classes (true → predicted)")
        if pairs:
            _draw_pairs(axis, labels, counts)
        else:
            axis.text(0.5, 0.5, "no image was taken for another class", ha="center", color=GREY)
            axis.set_axis_off()
    return png.getvalue()


def _draw_pairs(axis: "Axes", labels: Sequence[str], counts: Sequence[int]) -> None:
    bars = axis.barh(range(len(labels)), counts, color=BLUE, height=0.65)
    axis.bar_label(bars, padding=3, color=GREY)
    axis.set_yticks(range(len(labels)), labels)
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    use_integer_ticks(axis)
    axis.set_xlabel("images")
