"""Grids of images, as PNG."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_factory.evaluation.plots.style import MAX_HEADING, draw_once, render_png, shorten

#: Width of one picture in a grid, in inches.
_TILE = 1.1


@draw_once
def sample_grid(
    images: NDArray[np.uint8],
    titles: Sequence[str],
    *,
    heading: str = "",
    columns: int = 8,
    max_images: int = 40,
) -> bytes:
    """Draw images in a grid, each under its title.

    Args:
        images: Uint8 ``(N, H, W, C)`` with one or three channels.
        titles: N titles.
        heading: Above the grid.
        columns: Images in a row.
        max_images: The first so many are drawn.

    Returns:
        PNG.
    """
    shown = images[:max_images]
    names = [shorten(title, 16) for title in titles[: len(shown)]]
    pixels = shown[..., 0] if shown.shape[-1] == 1 else shown
    return draw_tiles(pixels, names, heading, columns, {"cmap": "gray", "vmin": 0, "vmax": 255})


def draw_tiles(
    pictures: NDArray[Any],
    titles: Sequence[str],
    heading: str,
    columns: int,
    colors: Mapping[str, Any],
) -> bytes:
    """Draw pictures ``(n, H, W)`` or ``(n, H, W, 3)`` on one axis whose unit is the inch.

    One axis for each picture takes ten times as long.
    """
    columns = max(1, min(columns, len(pictures)))
    rows = max(1, -(-len(pictures) // columns))
    heading = shorten(heading, MAX_HEADING)
    tall, gap, top = _TILE * pictures.shape[1] / pictures.shape[2], 0.1, 0.42 if heading else 0.05
    width = max(columns * (_TILE + gap) + gap, 0.105 * len(heading))
    height = top + rows * (tall + 0.28) + gap
    with render_png(width, height, None) as (figure, png):
        axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axis.set_axis_off()
        axis.text(gap, 0.25, heading, fontsize=12, fontweight="bold", va="center")
        for i, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
            left = gap + i % columns * (_TILE + gap)
            below = top + i // columns * (tall + 0.28) + 0.24 + tall
            axis.imshow(
                picture,
                extent=(left, left + _TILE, below, below - tall),
                interpolation="nearest",
                **colors,
            )
            axis.text(left + _TILE / 2, below - tall - 0.05, title, ha="center", fontsize=9)
        axis.set(xlim=(0.0, width), ylim=(height, 0.0), aspect="auto")
    return png.getvalue()
