"""PCA and UMAP plots, as PNG."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_factory.evaluation.plots.fonts import writable_names
from cv_factory.evaluation.plots.samples import draw_tiles
from cv_factory.evaluation.plots.style import (
    BLUE,
    MAX_ROWS,
    ORANGE,
    get_class_color,
    render_png,
    set_heading,
    shorten,
    use_integer_ticks,
)


def pca_spectrum(explained_variance_ratio: NDArray[np.floating[Any]]) -> bytes:
    """Draw each component's share of the variance, and their running sum.

    Args:
        explained_variance_ratio: Float ``(k,)``, each a share of the total variance.

    Returns:
        PNG.
    """
    ratio = np.asarray(explained_variance_ratio, dtype=np.float64)
    total, index = np.cumsum(ratio), np.arange(1, len(ratio) + 1)
    with render_png(7.5, 3.8) as (figure, png):
        axis = figure.subplots()
        axis.bar(index, 100 * ratio, color=BLUE, width=0.8, label="each component")
        axis.plot(index, 100 * total, color=ORANGE, label="all up to it")
        axis.annotate(
            f"{100 * total[-1]:.1f} %",
            (float(index[-1]), 100 * float(total[-1])),
            xytext=(0, 6),
            textcoords="offset points",
            ha="right",
            color=ORANGE,
            fontweight="bold",
        )
        axis.set(xlabel="principal component", ylabel="variance explained (%)", ylim=(0, 109))
        set_heading(figure, f"{len(ratio)} principal components")
        axis.set_xlim(0.3, len(ratio) + 0.7)
        use_integer_ticks(axis)
        axis.grid(axis="y")
        axis.legend(loc="center right")
    return png.getvalue()


def pca_components(
    components: NDArray[np.floating[Any]],
    image_shape: tuple[int, int, int],
    *,
    max_images: int = 32,
) -> bytes:
    """Draw principal components as images: red raises the score, blue lowers it, white does not.

    Args:
        components: Float ``(k, D)`` with D = H * W * C; the first ``max_images`` are drawn.
        image_shape: ``(H, W, C)``; channels are averaged.
        max_images: How many to draw.

    Returns:
        PNG.
    """
    shown = np.asarray(components[:max_images], dtype=np.float64)
    pictures = shown.reshape(len(shown), *image_shape).mean(axis=-1)
    strongest = np.abs(pictures).max(axis=(1, 2), keepdims=True)
    pictures = pictures / np.where(strongest > 0, strongest, 1.0)
    names = [str(number) for number in range(1, len(shown) + 1)]
    heading = f"First {len(shown)} of {len(components)} principal components"
    return draw_tiles(pictures, names, heading, 8, {"cmap": "RdBu_r", "vmin": -1, "vmax": 1})


def feature_map(
    positions: NDArray[np.floating[Any]], labels: NDArray[np.int64], class_names: Sequence[str]
) -> bytes:
    """Draw where images lie on a map of two dimensions, one color a class.

    Args:
        positions: Float ``(n, 2)``.
        labels: Int ``(n,)``.
        class_names: Name of each label.

    Returns:
        PNG.
    """
    with render_png(7.0, 5.6) as (figure, png):
        axis = figure.subplots()
        colors = np.arange(len(class_names)) / max(1, len(class_names) - 1)
        for label, name in enumerate(writable_names(class_names)):
            points = positions[labels == label]
            color = get_class_color(float(colors[label]))
            axis.scatter(points[:, 0], points[:, 1], s=8, color=color, linewidths=0)
            if len(points) and len(class_names) <= MAX_ROWS:
                middle = np.median(points, axis=0)
                axis.annotate(shorten(name, 14), middle, ha="center", fontweight="bold")
        axis.set(xticks=[], yticks=[])
        set_heading(figure, f"UMAP of {len(positions):,} training images")
    return png.getvalue()
