"""Pictures: real PNG of a sensible size, the same bytes each time, whatever the names."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import matplotlib.font_manager
import numpy as np
import pytest
from PIL import Image

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.plots import fonts, style
from cv_factory.evaluation.plots.class_metrics import per_class_bars
from cv_factory.evaluation.plots.confusion import confusion_matrix
from cv_factory.evaluation.plots.curves import class_curves, precision_recall_points, roc_points
from cv_factory.evaluation.plots.projections import pca_components, pca_spectrum
from cv_factory.evaluation.plots.samples import sample_grid
from cv_factory.evaluation.plots.training_curves import training_curves

HOSTILE = [
    "$\\frac$",
    "<b>x</b>",
    "a\nb\x00c",
    "x" * 300,
    "",
    "%s {0}",
    "Ünïcode",
    "_under_",
    "-",
    "\t",
]
#: Of a script that the default font lacks.
UNWRITABLE = "\U00010980\U00010981"


def pixels(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert not image.info.keys() - {"dpi"}, "no time stamp, no version"
    return np.asarray(image.convert("RGB"))


def matrix_of(n_classes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.diag(rng.integers(1, 40, n_classes)) + rng.integers(0, 3, (n_classes, n_classes))


def draw_all() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    history = [
        {
            "epoch": i,
            "train_loss": 2 / i,
            "validation_loss": 3 / i,
            "validation_accuracy": 1 - 1 / i,
        }
        for i in range(1, 6)
    ]
    values = rng.random(10).tolist()
    return {
        "grey": sample_grid(rng.integers(0, 256, (10, 8, 8, 1), dtype=np.uint8), HOSTILE),
        "colour": sample_grid(
            rng.integers(0, 256, (10, 6, 9, 3), dtype=np.uint8), HOSTILE, heading="$x"
        ),
        "spectrum": pca_spectrum(np.array([0.5, 0.3, 0.1], dtype=np.float32)),
        "components": pca_components(rng.normal(size=(5, 48)), (4, 4, 3)),
        "curves": training_curves(history, 5),
        "matrix": confusion_matrix(matrix_of(10), HOSTILE),
        "bars": per_class_bars(HOSTILE, values, values, values),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.slow
def test_each_picture_is_the_same_bytes_twice_under_any_rc_setting():
    first = draw_all()
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "text.color": "red"}):
        before = dict(matplotlib.rcParams)
        style.forget_drawn()
        second = draw_all()
        assert dict(matplotlib.rcParams) == before
    assert first == second
    for name, png in first.items():
        picture = pixels(png)
        assert 150 < picture.shape[0] < 1500, name
        assert 250 < picture.shape[1] < 1500, name
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20, name


def test_equal_arguments_are_drawn_once_and_different_ones_are_not_mistaken():
    drawn = []

    @style.draw_once
    def plot(values, titles=(), scale=1.0):
        drawn.append(values)
        return str(len(drawn)).encode()

    values = np.arange(6, dtype=np.int64)
    first = plot(values, ["a", "b"])
    assert plot(values.copy(), ["a", "b"]) == first
    assert plot({"a": [np.float64(0.5), None]}) == plot({"a": [0.5, None]})
    for different in (
        (values, ["ab"]),
        (values, ["a", "b"], 2.0),
        (values.reshape(2, 3), ["a", "b"]),
        (values.astype(np.float64), ["a", "b"]),
        (values.tolist(), ["a", "b"]),
        (values[::-1], ["a", "b"]),
    ):
        assert plot(*different) == str(len(drawn)).encode()
    assert len(drawn) == 8
    for i in range(60):
        plot(i)
    assert plot(values, ["a", "b"]) != first, "only so many are kept"


def test_the_grid_shows_the_pixels():
    images = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    images[0], images[1], images[2] = (250, 10, 20), (10, 250, 20), (10, 20, 250)
    picture = pixels(sample_grid(images, ["a", "b", "c"])).reshape(-1, 3)
    for colour in images[:, 0, 0]:
        assert (picture == colour).all(axis=1).sum() > 5000


def test_grey_levels_are_not_stretched():
    images = np.full((1, 4, 4, 1), 100, dtype=np.uint8)
    picture = pixels(sample_grid(images, ["a"])).reshape(-1, 3)
    assert (picture == 100).all(axis=1).sum() > 5000


def test_only_so_many_images_are_drawn():
    images = np.zeros((200, 4, 4, 1), dtype=np.uint8)
    titles = [str(i) for i in range(200)]
    assert sample_grid(images, titles) == sample_grid(images[:40], titles[:40])


@pytest.mark.parametrize("n_classes", [2, 13, 50, 51, 1000])
def test_a_confusion_matrix_of_any_size_fits_a_screen(n_classes):
    names = [f"a rather long class name {i}" for i in range(n_classes)]
    height, width, _ = pixels(confusion_matrix(matrix_of(n_classes), names)).shape
    assert 300 < height < 1400
    assert 400 < width < 1400


def test_a_matrix_shows_where_the_errors_are():
    matrix = np.diag([9, 9, 9])
    clean = confusion_matrix(matrix, ["a", "b", "c"])
    matrix[0, 2] = 1
    assert confusion_matrix(matrix, ["a", "b", "c"]) != clean


def test_empty_and_undefined_values_are_drawn():
    """A class without images, a model without epochs, without errors, without variance."""
    names = [str(i) for i in range(60)]
    for png in (
        confusion_matrix(np.zeros((3, 3), dtype=np.int64), names[:3]),
        confusion_matrix(np.eye(60, dtype=np.int64), names),
        training_curves([], 1),
        per_class_bars(["a", "b"], [None, 0.0], [None, 0.5], [None, 0.0]),
        per_class_bars(names, [0.9] * 60, [0.9] * 60, [0.9] * 60),
        pca_components(np.zeros((1, 16)), (4, 4, 1)),
    ):
        assert pixels(png).min() < 128


def test_importing_draws_nothing_in():
    """Neither matplotlib nor torch, zenml or scikit-learn is imported with the module."""
    code = (
        "import sys, cv_factory.evaluation.reports.model_card as card;"
        "print(sorted({'matplotlib', 'torch', 'zenml', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def scores(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(20 * n_classes) % n_classes
    # Rounded, so that many images have the same score.
    weights = np.round(rng.random((len(labels), n_classes)), 1) + 0.5 * np.eye(n_classes)[labels]
    return labels, weights / weights.sum(axis=1, keepdims=True)


def test_the_curves_enclose_the_areas_that_are_reported():
    labels, probabilities = scores(4)
    plans = m.rank_plans(labels, probabilities)
    areas = [np.trapezoid(y, x) for x, y in map(roc_points, plans)]
    assert np.mean(areas) == pytest.approx(m.roc_auc(labels, probabilities))
    precisions = [precision_recall_points(plan)[1][1:].mean() for plan in plans]
    assert np.mean(precisions) == pytest.approx(m.pr_auc(labels, probabilities))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["ROC", "precision-recall"])
@pytest.mark.parametrize("n_classes", [2, 3, 40])
def test_curves_of_any_number_of_classes_fit_a_screen(kind, n_classes):
    labels, probabilities = scores(n_classes)
    labels[labels == 0] = 1
    names = [HOSTILE[i % len(HOSTILE)] for i in range(n_classes)]
    height, width, _ = pixels(class_curves(kind, labels, probabilities, names)).shape
    assert 300 < height < 1400
    assert 400 < width < 1400


@pytest.fixture
def _font_of_two_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed font that has squares for U+10980 and U+10981, and nothing else."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", "square", "other"]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({0x10980: "square", 0x10981: "other"})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares Sans", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    manager = matplotlib.font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [*manager.ttflist])
    manager.addfont(tmp_path / "squares.ttf")
    caches = (fonts._select_fonts, fonts._installed_families, fonts._coverage)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("no_installed_fonts")
def test_names_that_no_font_can_write_are_numbered(caplog: pytest.LogCaptureFixture) -> None:
    names = ["cat", UNWRITABLE, "Ünïcode", "\u2702\ufe0f"]
    assert fonts.writable_names(names) == ("cat", "class 1", *names[2:])
    assert confusion_matrix(matrix_of(4), names) == confusion_matrix(
        matrix_of(4), ["cat", "class 1", "Ünïcode", "\u2702"]
    )
    grid = sample_grid(np.zeros((1, 4, 4, 1), np.uint8), [UNWRITABLE], heading=UNWRITABLE)
    assert pixels(grid).min() < 100
    assert not caplog.records


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("_font_of_two_characters")
def test_an_installed_font_writes_what_the_default_lacks(caplog: pytest.LogCaptureFixture) -> None:
    assert fonts.writable_names(["a", UNWRITABLE]) == ("a", UNWRITABLE)
    images = np.full((1, 4, 4, 1), 255, np.uint8)
    shown, blank = (pixels(sample_grid(images, [title])) for title in (UNWRITABLE, ""))
    assert (shown != blank).any(axis=-1).sum() > 50
    confusion_matrix(matrix_of(2), ["a", UNWRITABLE])
    assert not caplog.records
