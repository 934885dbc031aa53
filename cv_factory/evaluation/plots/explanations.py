"""Images beside the heat maps that explain their predictions, as PNG."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_factory.evaluation.plots.style import INK, draw_once, render_png, shorten


@draw_once
def explanations(
    images: Sequence[NDArray[np.uint8]],
    heats: Sequence[NDArray[np.float32]],
    titles: Sequence[str],
    are_right: Sequence[bool],
) -> bytes:
    """Draw pairs: an image, and beside it what spoke for (red) and against (blue) its class.

    Args:
        images: n times uint8 ``(H, W, C)``.
        heats: n times float32 ``(H, W)``.
        titles: n titles.
        are_right: Whether each prediction was right.

    Returns:
        PNG.
    """
    pairs, columns = len(images), min(4, max(1, len(images)))
    rows = -(-pairs // columns)
    with render_png(2.3 * columns + 0.2, 1.42 * rows + 0.4, None) as (figure, png):
        figure.text(
            0.012,
            1 - 0.2 / (1.42 * rows + 0.4),
            "Image, and what in it counted",
            fontsize=12,
            fontweight="bold",
            va="center",
        )
        for i in range(pairs):
            left = (0.1 + i % columns * 2.3) / (2.3 * columns + 0.2)
            below = (rows - 1 - i // columns) * 1.42 + 0.05
            for side, colors in enumerate(_explained(images[i], heats[i])):
                place = (
                    left + side * 1.08 / (2.3 * columns + 0.2),
                    below / (1.42 * rows + 0.4),
                    1.04 / (2.3 * columns + 0.2),
                    1.04 / (1.42 * rows + 0.4),
                )
                axis = figure.add_axes(place)
                axis.set_axis_off()
                for picture, options in colors:
                    axis.imshow(picture, interpolation="nearest", **options)
                if side == 0:
                    color = INK if are_right[i] else "#9c2a1f"
                    axis.set_title(shorten(titles[i], 30), fontsize=9, pad=3, color=color)
    return png.getvalue()


def _explained(
    image: NDArray[np.uint8], heat: NDArray[np.float32]
) -> list[list[tuple[NDArray[Any], dict[str, Any]]]]:
    """Return the two pictures of an explanation: layers, each with its colors."""
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    grey = image.mean(axis=-1)
    strongest = float(np.abs(heat).max()) or 1.0
    shown = {"cmap": "gray", "vmin": 0, "vmax": 255}
    # The image shows faintly below its explanation.
    faint = {"cmap": "gray", "vmin": -600, "vmax": 255}
    warm = {"cmap": "RdBu_r", "vmin": -strongest, "vmax": strongest, "alpha": 0.75}
    return [[(pixels, shown)], [(grey, faint), (heat, warm)]]
