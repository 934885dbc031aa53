"""Pictures for reports and the dashboard, as PNG bytes; equal input gives equal bytes.

Figures are drawn without pyplot, so nothing is left open and no global state is kept.
"""

import io
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#2563a8", "#d9822b", "#3d8f5f"
_INK, _GREY, _LINE = "#22303c", "#64727e", "#dbe1e6"
_MAX_MATRIX_CLASSES = 50
_MAX_MATRIX_NUMBERS = 20
_MAX_PAIRS = 20
_MAX_BARS = 50
# Width of one picture in a grid, in inches.
_TILE = 1.1
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": _INK,
    # A class name may hold a "$".
    "text.parse_math": False,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _GREY,
    "axes.titlecolor": _INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


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
    names = [_short(title, 16) for title in titles[: len(shown)]]
    pixels = shown[..., 0] if shown.shape[-1] == 1 else shown
    return _tiles(pixels, names, heading, columns, {"cmap": "gray", "vmin": 0, "vmax": 255})


def pca_spectrum(explained_variance_ratio: NDArray[np.floating[Any]]) -> bytes:
    """Draw each component's share of the variance, and their running sum.

    Args:
        explained_variance_ratio: Float ``(k,)``, each a share of the total variance.

    Returns:
        PNG.
    """
    ratio = np.asarray(explained_variance_ratio, dtype=np.float64)
    total, index = np.cumsum(ratio), np.arange(1, len(ratio) + 1)
    with _figure(7.5, 3.8) as (figure, png):
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
        _head(figure, f"{len(ratio)} principal components")
        axis.set_xlim(0.3, len(ratio) + 0.7)
        _whole_numbers(axis)
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
    return _tiles(pictures, names, heading, 8, {"cmap": "RdBu_r", "vmin": -1, "vmax": 1})


def training_curves(history: Sequence[Mapping[str, float]]) -> bytes:
    """Draw losses and validation accuracy over the epochs, and mark the most accurate epoch.

    Args:
        history: One mapping an epoch with ``epoch``, ``train_loss``, ``validation_loss`` and
            ``validation_accuracy``; may be empty (a model without epochs).

    Returns:
        PNG.
    """
    with _figure(9.0, 3.6) as (figure, png):
        loss_axis, accuracy_axis = figure.subplots(1, 2)
        loss_axis.set_title("Loss")
        accuracy_axis.set_title("Validation accuracy (%)")
        for axis in (loss_axis, accuracy_axis):
            axis.set_xlabel("epoch")
            axis.grid(axis="y")
        if history:
            _draw_history(loss_axis, accuracy_axis, history)
        else:
            for axis in (loss_axis, accuracy_axis):
                axis.text(0.5, 0.5, "fitted in one go: no epochs", ha="center", color=_GREY)
                axis.set(xticks=[], yticks=[])
    return png.getvalue()


def feature_map(
    positions: NDArray[np.floating[Any]], labels: NDArray[np.int64], class_names: Sequence[str]
) -> bytes:
    """Draw where images lie on a map of two dimensions, one colour a class.

    Args:
        positions: Float ``(n, 2)``.
        labels: Int ``(n,)``.
        class_names: Name of each label.

    Returns:
        PNG.
    """
    with _figure(7.0, 5.6) as (figure, png):
        axis = figure.subplots()
        colours = np.arange(len(class_names)) / max(1, len(class_names) - 1)
        for label, name in enumerate(class_names):
            points = positions[labels == label]
            colour = _rainbow(float(colours[label]))
            axis.scatter(points[:, 0], points[:, 1], s=8, color=colour, linewidths=0)
            if len(points) and len(class_names) <= _MAX_BARS:
                middle = np.median(points, axis=0)
                axis.annotate(_short(name, 14), middle, ha="center", fontweight="bold")
        axis.set(xticks=[], yticks=[])
        _head(figure, f"UMAP of {len(positions):,} training images")
    return png.getvalue()


def search_history(
    scores: Sequence[float | None], families: Sequence[str], best: int, metric: str
) -> bytes:
    """Draw the score of every trial of a search.

    Args:
        scores: By trial; None of one that has none.
        families: By trial, the model's name.
        best: Place of the winner.
        metric: What the scores are.

    Returns:
        PNG.
    """
    names = sorted(set(families))
    with _figure(7.5, 3.8) as (figure, png):
        axis = figure.subplots()
        for place, name in enumerate(names):
            points = [
                (number, score)
                for number, (score, family) in enumerate(zip(scores, families, strict=True))
                if family == name and score is not None
            ]
            colour = _rainbow(place / max(1, len(names) - 1))
            axis.plot(*zip(*points, strict=True) if points else ((), ()), "o", color=colour,
                      markersize=5, label=name)  # fmt: skip
        top = scores[best]
        assert top is not None, "the winner has a score"
        axis.axhline(top, color=_LINE, zorder=0)
        axis.plot(best, top, "o", markersize=11, markerfacecolor="none", color=_INK)
        axis.set(xlabel="trial", ylabel=metric.replace("_", " "))
        _head(figure, f"Best of {len(scores)} trials: {families[best]}, {top:.4f}")
        _whole_numbers(axis)
        axis.grid(axis="y")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return png.getvalue()


def search_importances(importances: Mapping[str, Mapping[str, float]]) -> bytes:
    """Draw how much of the score's variance each setting explains, family by family.

    Args:
        importances: By family, share by setting.

    Returns:
        PNG.
    """
    rows = [
        (f"{family}: {name}" if family != "all" else f"which {name}", share)
        for family, shares in importances.items()
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    with _figure(7.5, 0.32 * len(rows) + 1.2) as (figure, png):
        axis = figure.subplots()
        axis.barh([name for name, _ in rows], [100 * share for _, share in rows], color=BLUE)
        axis.invert_yaxis()
        axis.set(xlabel="share of the score's variance (%)")
        _head(figure, "What mattered: the family, and the settings within one")
        axis.grid(axis="x")
    return png.getvalue()


def confusion_matrix(
    matrix: NDArray[np.int64], class_names: Sequence[str], *, normalised: bool = False
) -> bytes:
    """Draw a confusion matrix: counts, coloured by their share of the true class.

    Above 50 classes, where no cell could be read, the pairs confused most often are drawn instead.

    Args:
        matrix: Counts by true class (rows) and predicted class (columns), int64 ``(K, K)``.
        class_names: K names.
        normalised: Write per cent of the true class instead of counts.

    Returns:
        PNG.
    """
    if len(class_names) > _MAX_MATRIX_CLASSES:
        return _confused_pairs(matrix, class_names)
    n = len(class_names)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = min(11.0, max(4.2, 0.5 * n + 1.6))
    names = [_short(name, 14) for name in class_names]
    # Wide enough for a colour bar; errors of a few per cent must show, hence the square root.
    with _figure(size + 1.0, size) as (figure, png):
        axis = figure.subplots()
        picture = axis.imshow(share, cmap="Blues", norm=_square_root_scale())
        upright = n <= 12 and max(map(len, names)) <= 4
        axis.set_xticks(range(n), names, rotation=0 if upright else 90)
        axis.set_yticks(range(n), names)
        axis.tick_params(length=0, labelsize=9 if n <= _MAX_MATRIX_NUMBERS else 8)
        axis.set(xlabel="predicted class", ylabel="true class")
        _head(figure, f"Confusion matrix ({'% of the true class' if normalised else 'images'})")
        axis.spines[:].set_visible(False)
        axis.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="white", linewidth=1.0)
        axis.tick_params(which="minor", length=0)
        for row, column in np.argwhere(matrix > 0):
            if n > _MAX_MATRIX_NUMBERS and row == column:
                continue
            value = 100 * share[row, column]
            text = f"{value:.1f}" if value < 99.95 else "100"
            shown = text if normalised else f"{matrix[row, column]}"
            _write_cell(axis, int(row), int(column), shown, share)
        bar = figure.colorbar(picture, ax=axis, shrink=0.8, aspect=28, pad=0.02)
        ticks = {0.0: "0", 0.05: "5 %", 0.2: "20 %", 0.5: "50 %", 1.0: "100 %"}
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
    return png.getvalue()


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
    order = sorted(range(len(class_names)), key=lambda i: (_or(f1[i], 2.0), i))[:_MAX_BARS]
    known = [v for values in (precision, recall, f1) for i in order if (v := values[i]) is not None]
    start = _axis_start(min(known, default=0.0))
    with _figure(7.5, 0.3 * len(order) + 1.6) as (figure, png):
        axis = figure.subplots()
        place = np.arange(len(order))
        axis.hlines(place, start, 1.0, color=_LINE, linewidth=0.8)
        for label, values, colour, marker, size in (
            ("precision", precision, GREEN, "<", 50),
            ("recall", recall, ORANGE, ">", 50),
            ("F1", f1, BLUE, "o", 60),
        ):
            x = [_or(values[i], np.nan) for i in order]
            axis.scatter(x, place, s=size, color=colour, marker=marker, label=label, zorder=3)
        axis.set_yticks(place, [_short(class_names[i], 24) for i in order])
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(start, 1.0 + 0.02 * (1.0 - start))
        axis.set_ylim(len(order) - 0.4, -0.6)
        axis.spines["left"].set_visible(False)
        hidden = len(class_names) - len(order)
        more = f" ({hidden} more not shown)" if hidden else ""
        _head(figure, f"Precision, recall and F1 by class, lowest F1 first{more}")
        axis.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, handletextpad=0.1)
    return png.getvalue()


def slice_accuracies(
    names: Sequence[str],
    accuracies: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    overall: float | None,
) -> bytes:
    """Draw the accuracy of slices with their intervals, in the given order from the top.

    Args:
        names: n names.
        accuracies: n shares.
        intervals: n pairs of low and high.
        overall: Accuracy on all images, drawn as a line.

    Returns:
        PNG.
    """
    with _figure(7.5, 0.28 * len(names) + 1.4) as (figure, png):
        axis = figure.subplots()
        place = np.arange(len(names))
        low, high = (np.array([pair[i] for pair in intervals]) for i in (0, 1))
        axis.hlines(place, low, high, color=BLUE, linewidth=2, alpha=0.45)
        axis.scatter(accuracies, place, s=42, color=BLUE, zorder=3)
        if overall is not None:
            axis.axvline(overall, color=ORANGE, linewidth=1.2, label=f"all images: {overall:.3f}")
            axis.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0))
        axis.set_yticks(place, [_short(name, 34) for name in names])
        axis.tick_params(axis="y", length=0)
        start = _axis_start(float(low.min(initial=1.0)))
        axis.set_xlim(start, 1.0 + 0.02 * (1.0 - start))
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x")
        _head(figure, "Accuracy by slice, worst first")
    return png.getvalue()


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
    with _figure(6.2, 5.2) as (figure, png):
        axis, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
        axis.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="calibrated")
        low, high = (np.array([pair[i] for pair in intervals]) for i in (0, 1))
        axis.vlines(confidence, low, high, color=BLUE, linewidth=2, alpha=0.45)
        axis.plot(confidence, accuracy, "o-", color=BLUE, linewidth=1.2, label="predictor")
        axis.set(ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
        axis.grid()
        axis.legend(loc="upper left")
        left, right = (np.array([pair[i] for pair in bins]) for i in (0, 1))
        below.bar(left, n_images, right - left, align="edge", color=BLUE, edgecolor="white")
        below.set(xlabel="confidence", ylabel="images")
        _head(figure, "Reliability")
    return png.getvalue()


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
    with _figure(8.6, 1.9 * rows + 0.5) as (figure, png):
        axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
        for axis, (name, values) in zip(axes, accuracies.items(), strict=False):
            start = [] if overall is None else [overall]
            severities = np.arange(1 - len(start), len(values) + 1)
            axis.plot(severities, [*start, *values], "o-", color=BLUE, markersize=4)
            axis.fill_between(severities, [*start, *values], color=BLUE, alpha=0.1)
            axis.set_title(_short(name, 22), fontsize=10)
            axis.set(ylim=(0, 1.03))
            axis.set_xticks(severities)
            axis.grid(axis="y")
        for axis in axes[len(accuracies) :]:
            axis.set_axis_off()
        _head(figure, "Accuracy by severity of corruption (0: images as they are)")
    return png.getvalue()


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
    with _figure(2.3 * columns + 0.2, 1.42 * rows + 0.4, None) as (figure, png):
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
            for side, colours in enumerate(_explained(images[i], heats[i])):
                place = (
                    left + side * 1.08 / (2.3 * columns + 0.2),
                    below / (1.42 * rows + 0.4),
                    1.04 / (2.3 * columns + 0.2),
                    1.04 / (1.42 * rows + 0.4),
                )
                axis = figure.add_axes(place)
                axis.set_axis_off()
                for picture, options in colours:
                    axis.imshow(picture, interpolation="nearest", **options)
                if side == 0:
                    colour = _INK if are_right[i] else "#9c2a1f"
                    axis.set_title(_short(titles[i], 30), fontsize=9, pad=3, color=colour)
    return png.getvalue()


def _explained(
    image: NDArray[np.uint8], heat: NDArray[np.float32]
) -> list[list[tuple[NDArray[Any], dict[str, Any]]]]:
    """Return the two pictures of an explanation: layers, each with its colours."""
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    grey = image.mean(axis=-1)
    strongest = float(np.abs(heat).max()) or 1.0
    shown = {"cmap": "gray", "vmin": 0, "vmax": 255}
    # The image shows faintly below its explanation.
    faint = {"cmap": "gray", "vmin": -600, "vmax": 255}
    warm = {"cmap": "RdBu_r", "vmin": -strongest, "vmax": strongest, "alpha": 0.75}
    return [[(pixels, shown)], [(grey, faint), (heat, warm)]]


@contextmanager
def _figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[tuple["Figure", io.BytesIO]]:
    """Give a styled figure of so many inches; after the block its PNG stands in the buffer."""
    # Imported here, for matplotlib takes half a second.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    png = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=110, layout=layout)
        FigureCanvasAgg(figure)
        yield figure, png
        # Without "Software" the bytes do not depend on matplotlib's version string.
        figure.savefig(png, format="png", metadata={"Software": None})
        figure.clear()


def _tiles(
    pictures: NDArray[Any],
    titles: Sequence[str],
    heading: str,
    columns: int,
    colours: Mapping[str, Any],
) -> bytes:
    """Draw pictures ``(n, H, W)`` or ``(n, H, W, 3)`` on one axis whose unit is the inch.

    One axis for each picture takes ten times as long.
    """
    columns = max(1, min(columns, len(pictures)))
    rows = max(1, -(-len(pictures) // columns))
    tall, gap, top = _TILE * pictures.shape[1] / pictures.shape[2], 0.1, 0.42 if heading else 0.05
    width = max(columns * (_TILE + gap) + gap, 0.105 * len(heading))
    height = top + rows * (tall + 0.28) + gap
    with _figure(width, height, None) as (figure, png):
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
                **colours,
            )
            axis.text(left + _TILE / 2, below - tall - 0.05, title, ha="center", fontsize=9)
        axis.set(xlim=(0.0, width), ylim=(height, 0.0), aspect="auto")
    return png.getvalue()


def _head(figure: "Figure", text: str) -> None:
    figure.suptitle(text, x=0.015, ha="left", fontsize=12, fontweight="bold")


def _rainbow(place: float) -> Any:
    """Return a colour for a place from 0 to 1."""
    import matplotlib

    return matplotlib.colormaps["turbo"](0.05 + 0.9 * place)


def _whole_numbers(axis: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_history(
    loss_axis: "Axes", accuracy_axis: "Axes", history: Sequence[Mapping[str, float]]
) -> None:
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) < 15 else ""
    for key, label, colour in (
        ("train_loss", "training", BLUE),
        ("validation_loss", "validation", ORANGE),
    ):
        losses = [row[key] for row in history]
        loss_axis.plot(epochs, losses, color=colour, marker=marker, markersize=4, label=label)
    loss_axis.set_ylim(bottom=0)
    loss_axis.legend()
    accuracies = [100 * row["validation_accuracy"] for row in history]
    accuracy_axis.plot(epochs, accuracies, color=ORANGE, marker=marker, markersize=4)
    best = int(np.argmax(accuracies))
    accuracy_axis.plot(epochs[best], accuracies[best], "o", color=ORANGE, markersize=8)
    accuracy_axis.annotate(
        f"best: {accuracies[best]:.2f} % in epoch {epochs[best]:g}",
        (epochs[best], accuracies[best]),
        xytext=(0, -18),
        textcoords="offset points",
        ha="right" if best >= len(epochs) / 2 else "left",
        color=_INK,
    )
    for axis in (loss_axis, accuracy_axis):
        _whole_numbers(axis)


def _write_cell(axis: "Axes", row: int, column: int, text: str, share: NDArray[np.float64]) -> None:
    n = len(share)
    axis.text(
        column,
        row,
        text,
        ha="center",
        va="center",
        fontsize=9 if n <= 12 else 7.5 if n <= _MAX_MATRIX_NUMBERS else 6.5,
        color="white" if share[row, column] > 0.3 else _INK,
        fontweight="bold" if row == column else "normal",
    )


def _square_root_scale() -> Any:
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0.0, vmax=1.0)


def _confused_pairs(matrix: NDArray[np.int64], class_names: Sequence[str]) -> bytes:
    errors = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-errors, axis=None, kind="stable")[:_MAX_PAIRS]
    pairs = [np.unravel_index(cell, errors.shape) for cell in order if errors.flat[cell] > 0]
    labels = [f"{_short(class_names[r], 22)} → {_short(class_names[c], 22)}" for r, c in pairs]
    counts = [int(errors[pair]) for pair in pairs]
    with _figure(7.5, 0.3 * max(len(pairs), 3) + 1.3) as (figure, png):
        axis = figure.subplots()
        bars = axis.barh(range(len(pairs)), counts, color=BLUE, height=0.65)
        axis.bar_label(bars, padding=3, color=_GREY)
        axis.set_yticks(range(len(pairs)), labels)
        axis.tick_params(axis="y", length=0)
        axis.invert_yaxis()
        _whole_numbers(axis)
        axis.set_xlabel("images")
        _head(figure, f"Most confused of {len(class_names)} classes (true → predicted)")
    return png.getvalue()


def _axis_start(lowest: float) -> float:
    """Return where an axis up to 1 begins so that differences show: a round number below."""
    return next((start for start in (0.9, 0.75, 0.5) if lowest > start + 0.02), 0.0)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _short(text: str, length: int) -> str:
    """Return one line of at most ``length`` characters, without control characters."""
    line = "".join(" " if unicodedata.category(c).startswith("C") else c for c in text)
    return line if len(line) <= length else line[: length - 1] + "…"
