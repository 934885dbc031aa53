"""Shared style of all plots: colors, fonts and the canvas. Equal input gives equal PNG bytes.

Figures are drawn without pyplot, so that nothing is left open.
"""

import hashlib
import io
import logging
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

import numpy as np

from cv_factory.evaluation.plots.fonts import (
    DEFAULT_FAMILY,
    FONT_LOGGER,
    font_families,
    replace_missing,
    use_installed_fonts,
)
from cv_factory.evaluation.plots.picture_cache import drawing_version, read_picture, store_picture
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

_P = ParamSpec("_P")
#: Pictures that ``draw_once`` keeps: those of one training, and as many again.
_MAX_KEPT = 48
_kept: OrderedDict[str, bytes] = OrderedDict()


def draw_once(plot: Callable[_P, bytes]) -> Callable[_P, bytes]:
    """Decorator of a plot: equal arguments give the PNG that was drawn before.

    The report, the model card and MLflow show the same pictures, in steps that load the artifacts
    anew, and cached runs show them again. Arguments are arrays, numbers, texts, and sequences and
    mappings of these.
    """

    @wraps(plot)
    def reuse(*args: _P.args, **kwargs: _P.kwargs) -> bytes:
        version = drawing_version(plot.__module__)
        digest = hashlib.sha256(f"{version} {plot.__module__}.{plot.__qualname__}".encode())
        _update(digest, (args, kwargs))
        key = digest.hexdigest()
        if key not in _kept:
            stored = read_picture(key)
            if stored is None:
                stored = plot(*args, **kwargs)
                store_picture(key, stored)
            _kept[key] = stored
            if len(_kept) > _MAX_KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key]

    return reuse


def forget_drawn() -> None:
    """Let ``draw_once`` draw everything anew, as after a change of installed fonts."""
    _kept.clear()


def _update(digest: Any, value: Any) -> None:
    """Add a value with its type to a digest; the order of a mapping counts."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        assert not value.dtype.hasobject
        digest.update(f"{value.dtype.str}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, str | bytes | bool | int | float | None):
        digest.update(f"{type(value).__name__}{value!r}\0".encode())
        if isinstance(value, str):
            digest.update("\0".join(font_families(value)).encode())
    else:
        assert isinstance(value, Mapping | Sequence), type(value)
        digest.update(f"{len(value)}(".encode())
        for part in [*value.items()] if isinstance(value, Mapping) else value:
            _update(digest, part)


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
