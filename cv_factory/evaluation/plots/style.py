"""Shared style of all plots: colors, fonts and the canvas. Equal input gives equal PNG bytes.

Figures are drawn without pyplot, so that nothing is left open and no global state is kept.
"""

import io
import logging
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from cv_factory.evaluation.plots.fonts import (
    DEFAULT_FAMILY,
    FONT_LOGGER,
    replace_missing,
    use_installed_fonts,
)
from cv_factory.progress import quiet_loggers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#2563a8", "#d9822b", "#3d8f5f"
INK, GREY, LINE = "#22303c", "#64727e", "#dbe1e6"
#: Rows, or labels, that a plot shows at most.
MAX_ROWS = 50
#: Characters of a heading.
MAX_HEADING = 160
#: They choose between text and picture forms of emoji, and have no form of their own.
_VARIATION_SELECTORS = dict.fromkeys(range(0xFE00, 0xFE10))
_STYLE: dict[Any, Any] = {
    "font.family": [DEFAULT_FAMILY],
    "font.size": 10,
    "text.color": INK,
    # A class name may hold a "$".
    "text.parse_math": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": GREY,
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def render_png(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[tuple["Figure", io.BytesIO]]:
    """Yield a styled figure (inches) and a buffer that holds its PNG after the block."""
    # Imported here, for matplotlib takes half a second.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    png = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=110, layout=layout)
        FigureCanvasAgg(figure)
        yield figure, png
        use_installed_fonts(figure)
        with quiet_loggers(logging.ERROR, FONT_LOGGER):
            # Without "Software" the bytes do not depend on matplotlib's version string.
            figure.savefig(png, format="png", metadata={"Software": None})
        figure.clear()


def set_heading(figure: "Figure", text: str) -> None:
    """Write a bold heading above a figure, aligned left."""
    figure.suptitle(shorten(text, MAX_HEADING), x=0.015, ha="left", fontsize=12, fontweight="bold")


def get_class_color(position: float) -> Any:
    """Return the RGBA color of a position from 0 to 1 on the colormap of classes."""
    import matplotlib

    return matplotlib.colormaps["turbo"](0.05 + 0.9 * position)


def use_integer_ticks(axis: "Axes") -> None:
    """Put the ticks of the x axis at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def get_axis_start(lowest: float) -> float:
    """Return a round number below ``lowest`` at which an axis that ends at 1 may start."""
    return next((start for start in (0.9, 0.75, 0.5) if lowest > start + 0.02), 0.0)


def shorten(text: str, length: int) -> str:
    """Return one line of at most ``length`` characters, without those that cannot be drawn."""
    line = "".join(" " if unicodedata.category(c).startswith("C") else c for c in text)
    line = replace_missing(line.translate(_VARIATION_SELECTORS))
    return line if len(line) <= length else line[: length - 1] + "…"
