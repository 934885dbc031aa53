"""Plots of a monitoring report, as PNG."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cv_factory.evaluation.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LINE,
    ORANGE,
    draw_once,
    get_class_color,
    render_png,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RED = "#9c2a1f"
_MAX_CLASSES = 20
_MAX_TICKS = 6
#: Bounds of the axis of evidence by threshold.
_LEAST_RATIO, _MOST_RATIO = 1e-3, 1e3

Numbers = Sequence[float | None]


@draw_once
def accuracy_over_time(
    times: Sequence[str],
    estimated: Numbers,
    error: float | None,
    measured: Numbers,
    n_labels: Sequence[int],
    expected: float | None,
) -> bytes:
    """Draw the accuracy of each span: estimated with its band, and measured by labels.

    Args:
        times: Label of each span.
        estimated: Without labels, shares of 1.
        error: Half the height of the band, in shares of 1; None for no band.
        measured: Of the labeled predictions.
        n_labels: Number of those.
        expected: Of held-out images.

    Returns:
        PNG.
    """
    x = np.arange(len(times))
    with render_png(9.0, 3.2) as (figure, png):
        axis = figure.subplots()
        axis.set_title("Accuracy (%)")
        if expected is not None:
            _draw_expected(axis, 100 * expected)
        if any(value is not None for value in estimated):
            y = _as_percent(estimated)
            axis.plot(x, y, color=BLUE, label="estimated without labels")
            if error is not None:
                low, high = np.clip([y - 100 * error, y + 100 * error], 0, 100)
                axis.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0)
        if any(n_labels):
            sizes = 12 + 120 * np.sqrt(np.array(n_labels) / max(n_labels))
            axis.scatter(
                x, _as_percent(measured), sizes, color=ORANGE, zorder=3, label="of labeled ones"
            )
        _finish(axis, times)
        bottom, top = axis.get_ylim()
        axis.set_ylim(max(bottom, -2), min(top, 102))
        axis.legend(loc="lower left", ncols=3, fontsize=9)
    return png.getvalue()


@draw_once
def confidence_over_time(
    times: Sequence[str], confidence: Numbers, expected: float | None
) -> bytes:
    """Draw the mean confidence of each span beside that of held-out images; arguments as above."""
    with render_png(9.0, 2.6) as (figure, png):
        axis = figure.subplots()
        axis.set_title("Mean confidence (%)")
        if expected is not None:
            _draw_expected(axis, 100 * expected)
        axis.plot(np.arange(len(times)), _as_percent(confidence), color=BLUE)
        _finish(axis, times)
        if expected is not None:
            axis.legend(loc="lower left", fontsize=9)
    return png.getvalue()


@draw_once
def class_shares(
    names: Sequence[str], observed: Sequence[float], expected: Sequence[float] | None
) -> bytes:
    """Draw the share of each predicted class beside that of held-out images.

    Of more than 20 classes those that differ the most are drawn.
    """
    order = list(range(len(names)))
    if len(names) > _MAX_CLASSES:
        difference = np.abs(np.array(observed) - np.array(expected or np.zeros(len(names))))
        order = sorted(np.argsort(-difference)[:_MAX_CLASSES].tolist())
    x = np.arange(len(order))
    with render_png(9.0, 3.0) as (figure, png):
        axis = figure.subplots()
        axis.set_title("Share of each predicted class (%)")
        width = 0.4 if expected else 0.7
        shift = width / 2 if expected else 0.0
        if expected:
            heights = 100 * np.array(expected)[order]
            axis.bar(x - shift, heights, width, color=LINE, label="held-out images")
        axis.bar(x + shift, 100 * np.array(observed)[order], width, color=BLUE, label="this window")
        labels = [shorten(names[k], 16) for k in order]
        axis.set_xticks(x, labels, rotation=0 if max(map(len, labels)) * len(x) < 80 else 45)
        axis.grid(axis="y")
        axis.legend(fontsize=9, ncols=2, loc="upper right")
        axis.margins(y=0.2)
    return png.getvalue()


@draw_once
def shares_over_time(
    times: Sequence[str], names: Sequence[str], shares: Sequence[Sequence[float]]
) -> bytes:
    """Draw the shares of the predicted classes in each span, stacked; the rarest as one.

    Args:
        times: Label of each span.
        names: K names.
        shares: K shares for each span.
    """
    values = 100 * np.array(shares, dtype=float).T
    order = np.argsort(-values.sum(axis=1), kind="stable")
    shown, rest = sorted(order[:_MAX_CLASSES].tolist()), order[_MAX_CLASSES:]
    rows = [values[k] for k in shown] + ([values[rest].sum(axis=0)] if len(rest) else [])
    labels = [shorten(names[k], 16) for k in shown] + (["others"] if len(rest) else [])
    colors = [get_class_color(i / max(1, len(shown) - 1)) for i in range(len(shown))]
    colors += [LINE] if len(rest) else []
    with render_png(9.0, 3.4) as (figure, png):
        axis = figure.subplots()
        axis.set_title("Predicted classes (%)")
        x = np.arange(len(times))
        bottom = np.zeros(len(times))
        for row, label, color in zip(rows, labels, colors, strict=True):
            axis.bar(x, row, 0.9, bottom=bottom, color=color, label=label, alpha=0.85)
            bottom = bottom + row
        _finish(axis, times)
        axis.set_ylim(0, 100)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return png.getvalue()


@draw_once
def evidence_bars(names: Sequence[str], ratios: Sequence[float], is_alarm: Sequence[bool]) -> bytes:
    """Draw the evidence of each finding by its threshold, on a logarithmic axis; alarms are red."""
    y = np.arange(len(names))[::-1]
    clipped = np.clip(ratios, _LEAST_RATIO, _MOST_RATIO)
    with render_png(9.0, 0.9 + 0.32 * len(names)) as (figure, png):
        axis = figure.subplots()
        axis.set_title("Evidence by threshold")
        colors = [RED if alarm else BLUE for alarm in is_alarm]
        axis.set_xscale("log")
        axis.hlines(y, _LEAST_RATIO, clipped, colors=colors, linewidth=9)
        axis.axvline(1.0, color=INK, linewidth=1.2)
        axis.set_xlim(_LEAST_RATIO, _MOST_RATIO)
        axis.set_ylim(-0.7, len(names) - 0.3)
        axis.set_yticks(y, [shorten(name, 40) for name in names])
        axis.set_xticks(
            [0.001, 0.01, 0.1, 1, 10, 100, 1000],
            ["1/1,000", "1/100", "1/10", "alarm", "10x", "100x", "1,000x"],
        )
        axis.minorticks_off()
        axis.grid(axis="x")
    return png.getvalue()


@draw_once
def statistics_over_time(
    times: Sequence[str],
    names: Sequence[str],
    values: Sequence[Numbers],
    expected: Numbers,
) -> bytes:
    """Draw the mean of each statistic of the images in each span beside that of held-out images.

    Args:
        times: Label of each span.
        names: Of the statistics.
        values: For each statistic a number for each span.
        expected: For each statistic; None where it is unknown.
    """
    with render_png(9.0, 2.4) as (figure, png):
        axes = np.atleast_1d(figure.subplots(1, len(names)))
        for axis, name, row, level in zip(axes, names, values, expected, strict=True):
            axis.set_title(name, fontsize=10)
            if level is not None:
                _draw_expected(axis, level)
            axis.plot(np.arange(len(times)), _as_array(row), color=BLUE, linewidth=1.5)
            axis.grid(axis="y")
            axis.set_xticks([])
            axis.tick_params(labelsize=8)
            axis.margins(y=0.4)
    return png.getvalue()


@draw_once
def coverage_bars(days: Sequence[str], labeled: Sequence[float]) -> bytes:
    """Draw the share of predictions of each day that have a label."""
    with render_png(9.0, 2.4) as (figure, png):
        axis = figure.subplots()
        axis.set_title("Predictions with a label (%)")
        axis.bar(np.arange(len(days)), 100 * np.array(labeled), 0.7, color=GREEN)
        _finish(axis, days)
        axis.set_ylim(bottom=0)
    return png.getvalue()


def _draw_expected(axis: "Axes", level: float) -> None:
    axis.axhline(level, color=GREY, linewidth=1.2, linestyle="--", label="held-out images")


def _finish(axis: "Axes", times: Sequence[str]) -> None:
    """Add the grid, and the times of a few spans."""
    step = max(1, -(-len(times) // _MAX_TICKS))
    ticks = range(0, len(times), step)
    axis.set_xticks(ticks, [times[k] for k in ticks])
    axis.grid(axis="y")
    axis.margins(x=0.01, y=0.15)


def _as_array(values: Numbers) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _as_percent(values: Numbers) -> npt.NDArray[np.float64]:
    return 100 * _as_array(values)
