"""Pages that Evidently draws of a window beside its reference; our detectors decide.

Evidently's own verdicts are shown with its defaults, which correct for no number of columns.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.inference.reference import STATISTICS, Reference
from cv_factory.monitoring.window import Window

if TYPE_CHECKING:
    from evidently import Dataset

#: Rows below which Evidently's projection of the features cannot be drawn.
MIN_ROWS = 50
#: Features with a plot of their own; the test on all of them is one of its own.
_MAX_COLUMNS = 10
_EMBEDDING, _FEATURE, _PROBABILITY = "features", "feature ", "probability of "


def draw_evidently_pages(reference: Reference, window: Window, max_rows: int) -> dict[str, str]:
    """Return self-contained HTML pages by name; neither input nor random numbers are changed.

    ``evidently_drift`` compares features, confidence, predicted classes and statistics of the
    images; ``evidently_quality``, where there are labels of several classes, the classification.
    There is none where the window or the reference has fewer than 50 rows. Predictions without
    features are left out.

    Args:
        reference: Of held-out images.
        window: Without repeats, of the same version.
        max_rows: Of the window and of the reference: an even sample.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    has_features = np.asarray(np.isfinite(window.features).all(axis=1))
    window = window.select(has_features)
    if min(len(window), len(reference.test)) < MIN_ROWS:
        return {}
    with _isolated_random_state(), _one_thread():
        current = _frame(window, _sample(len(window), max_rows))
        expected = _reference_frame(reference, _sample(len(reference.test), max_rows))
        pages = {"evidently_drift": _draw_drift(expected, current)}
        labeled = np.flatnonzero(window.labels >= 0)
        if len(np.unique(window.labels[labeled])) > 1:
            rows = labeled[_sample(len(labeled), max_rows)]
            pages["evidently_quality"] = _draw_quality(
                expected, _frame(window, rows), window.class_names
            )
    return pages


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit the projection of the features: waiting threads make it slower on busy CPUs.

    The limit holds for libraries that are loaded, so that they are loaded first.
    """
    import sklearn.manifold  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


@contextmanager
def _isolated_random_state() -> Iterator[None]:
    """Seed the global generators for the block: Evidently seeds NumPy's, too, and leaves it so."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def _sample(n: int, max_rows: int) -> npt.NDArray[np.int64]:
    """Return the positions of at most ``max_rows`` of n rows, evenly spread."""
    return np.linspace(0, n - 1, min(n, max_rows)).astype(np.int64)


def _frame(window: Window, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
    arrays = window.probabilities[rows], window.features[rows], window.statistics[rows]
    return _build_frame(window.class_names, *arrays, window.labels[rows])


def _reference_frame(reference: Reference, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
    test = reference.test
    arrays = test.probabilities[rows], test.features[rows], test.statistics[rows]
    return _build_frame(reference.class_names, *arrays, test.labels[rows])


def _build_frame(
    class_names: tuple[str, ...],
    probabilities: npt.NDArray[np.float32],
    features: npt.NDArray[np.float32],
    statistics: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
) -> pd.DataFrame:
    names = np.array(class_names, dtype=object)
    columns: dict[str, Any] = {
        "prediction": names[probabilities.argmax(axis=1)],
        "target": [class_names[k] if k >= 0 else None for k in labels],
        "confidence": probabilities.max(axis=1),
    }
    columns |= {name: statistics[:, k] for k, name in enumerate(STATISTICS)}
    columns |= {f"{_FEATURE}{k + 1}": features[:, k] for k in range(features.shape[1])}
    columns |= {f"{_PROBABILITY}{name}": probabilities[:, k] for k, name in enumerate(class_names)}
    return pd.DataFrame(columns)


def _draw_drift(expected: pd.DataFrame, current: pd.DataFrame) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import EmbeddingsDrift
    from evidently.presets import DataDriftPreset

    frames = expected, current
    features = [name for name in current.columns if name.startswith(_FEATURE)]
    # One that is the same throughout, such as the size of all images, has no distribution.
    measured = [
        name
        for name in STATISTICS
        if all(frame[name].notna().all() and frame[name].nunique() > 1 for frame in frames)
    ]
    numbers = ["confidence", *measured, *features[:_MAX_COLUMNS]]
    definition = DataDefinition(
        numerical_columns=list(dict.fromkeys([*numbers, *features])),
        categorical_columns=["prediction"],
        embeddings={_EMBEDDING: features},
    )
    preset = DataDriftPreset(columns=["prediction", *numbers])
    metrics = [preset, *([EmbeddingsDrift(embeddings_name=_EMBEDDING)] if features else [])]
    chosen = ["prediction", *definition.numerical_columns]
    datasets = (
        Dataset.from_pandas(frame[chosen], data_definition=definition)
        for frame in (current, expected)
    )
    return _render(Report(metrics), *datasets)


def _draw_quality(
    expected: pd.DataFrame, current: pd.DataFrame, class_names: tuple[str, ...]
) -> str:
    from evidently import DataDefinition, Dataset, MulticlassClassification, Report
    from evidently.presets import ClassificationPreset

    definition = DataDefinition(
        categorical_columns=["prediction", "target"],
        classification=[MulticlassClassification(target="target", prediction_labels="prediction")],
    )
    datasets: list[Dataset | None] = [
        Dataset.from_pandas(frame[["prediction", "target"]], data_definition=definition)
        for frame in (current, expected)
    ]
    # Evidently compares class by class, and fails on one that the reference lacks.
    if not set(current["target"]) | set(current["prediction"]) <= set(expected["target"]):
        datasets[1:] = [None]
    return _render(Report([ClassificationPreset()]), *datasets)


def _render(report: Any, current: "Dataset", expected: "Dataset | None") -> str:
    html: str = report.run(current, expected).get_html_str(as_iframe=False)
    return html
