"""The ``Evaluation``: what a predictor got right and wrong on test images, and how sure that is.

It sees probabilities, labels and ids only; how a predictor is run is not its business.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from cv_factory.artifact_files import read_header, write_header
from cv_factory.config import EvaluateConfig
from cv_factory.errors import ArtifactError
from cv_factory.evaluation import metrics as m

KIND = "evaluation"
VERSION = 1
_PREDICTIONS = "predictions.parquet"
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.int64()),
        ("predicted", pa.int64()),
        ("confidence", pa.float64()),
    ]
)
# Rows may miss a sum of 1 by this much: float32 softmax over many classes.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Metric:
    """A number with its confidence interval; what is None could not be computed, for a reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        """Check that numbers are finite and ordered, and that what is missing has a reason.

        Raises:
            ValueError: They are not, or it has none.
        """
        numbers = [n for n in (self.low, self.value, self.high) if n is not None]
        if not all(math.isfinite(n) for n in numbers) or numbers != sorted(numbers):
            raise ValueError(f"not low <= value <= high: {self.low}, {self.value}, {self.high}")
        if (len(numbers) < 3) != bool(self.reason):
            raise ValueError("a reason must stand where a number is missing, and only there")
        if (self.low is None) != (self.high is None) or (self.value is None and numbers):
            raise ValueError("an interval has two ends and a value between them")


@dataclass(frozen=True)
class ClassMetrics:
    """One class's row: None for precision if never predicted, for recall if without images."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True, eq=False)
class Predictions:
    """What was predicted for each test image.

    Attributes:
        ids: Ids of the images, N of them, each once.
        labels: True classes, int64 ``(N,)``.
        predicted: Predicted classes, int64 ``(N,)``.
        confidence: Probability of the predicted class, float64 ``(N,)``.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The measured quality of one predictor on one set of test images.

    Attributes:
        metrics: By name, those of ``metrics.METRIC_NAMES``.
        per_class: One row for each class, in the order of ``class_names``.
        confusion: Counts by true class (rows) and predicted class (columns), int64 ``(K, K)``.
        class_names: K names.
        confidence: Level of the intervals, such as 0.95.
        predictor_fingerprint: Which predictor this is about.
        predictions: What was predicted for each image.
    """

    metrics: Mapping[str, Metric]
    per_class: tuple[ClassMetrics, ...]
    confusion: NDArray[np.int64]
    class_names: tuple[str, ...]
    confidence: float
    predictor_fingerprint: str
    predictions: Predictions

    @property
    def n_images(self) -> int:
        """The number of test images, N."""
        return len(self.predictions.ids)

    def most_confused(self, n: int) -> list[tuple[str, str, int]]:
        """Return up to ``n`` pairs (true class, predicted class, images), most images first."""
        errors = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-errors, axis=None, kind="stable")[:n]
        rows, columns = np.unravel_index(order, errors.shape)
        return [
            (self.class_names[row], self.class_names[column], int(errors[row, column]))
            for row, column in zip(rows, columns, strict=True)
            if errors[row, column] > 0
        ]

    def save(self, directory: Path) -> None:
        """Write ``predictions.parquet`` and ``evaluation.json`` into an existing directory."""
        p = self.predictions
        table = pa.table(
            [pa.array(p.ids, pa.string()), p.labels, p.predicted, p.confidence], schema=_SCHEMA
        )
        pq.write_table(table, directory / _PREDICTIONS, compression="zstd")
        body = {
            "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
            "per_class": [asdict(row) for row in self.per_class],
            "class_names": list(self.class_names),
            "confidence": self.confidence,
            "predictor_fingerprint": self.predictor_fingerprint,
        }
        write_header(directory, KIND, VERSION, body, [_PREDICTIONS])

    @classmethod
    def load(cls, directory: Path) -> "Evaluation":
        """Read what ``save`` wrote, and check that header and predictions tell the same story.

        Raises:
            ArtifactError: A file is missing, damaged, of another version, or contradicts another.
        """
        header = directory / f"{KIND}.json"
        try:
            body = _Body.model_validate_json(json.dumps(read_header(directory, KIND, VERSION)))
        except ValidationError as error:
            raise ArtifactError(f"{header} does not hold an evaluation: {error}") from None
        n_classes = len(body.class_names)
        predictions = _read_predictions(directory / _PREDICTIONS, n_classes)
        confusion = m.confusion_matrix(predictions.labels, predictions.predicted, n_classes)
        rows = tuple(body.per_class)
        if (
            body.metrics.keys() != set(m.METRIC_NAMES)
            or body.metrics["accuracy"].value != m.accuracy(confusion)
            or rows != _class_rows(confusion, body.class_names)
        ):
            raise ArtifactError(
                f"{header} does not agree with {_PREDICTIONS} beside it: the artifact is damaged."
            )
        return cls(
            metrics={name: body.metrics[name] for name in m.METRIC_NAMES},
            per_class=rows,
            confusion=confusion,
            class_names=tuple(body.class_names),
            confidence=body.confidence,
            predictor_fingerprint=body.predictor_fingerprint,
            predictions=predictions,
        )


class _Body(BaseModel):
    """The header's body, as strictly typed as a configuration."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    metrics: dict[str, Metric]
    per_class: list[ClassMetrics]
    class_names: list[str]
    confidence: float
    predictor_fingerprint: str


def evaluate(
    probabilities: m.Floats,
    labels: NDArray[np.int64],
    ids: Sequence[str],
    class_names: Sequence[str],
    predictor_fingerprint: str,
    config: EvaluateConfig,
) -> Evaluation:
    """Measure a predictor's output on the test images.

    Args:
        probabilities: Float32 or float64 ``(N, K)``, rows sum to 1.
        labels: True classes, int64 ``(N,)``.
        ids: N ids of the images, each once.
        class_names: K names, each once.
        predictor_fingerprint: Which predictor gave the probabilities.
        config: Resamples, confidence level and seed of the intervals.

    Returns:
        The evaluation; the same input gives the same one.

    Raises:
        EvaluationError: Shapes, types or values do not fit together.
    """
    _check_input(probabilities, labels, ids, class_names)
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    confusion = m.confusion_matrix(labels, predicted, len(class_names))
    confidence = probabilities[np.arange(len(labels)), predicted].astype(np.float64)
    return Evaluation(
        metrics=_measure(probabilities, labels, confusion, class_names, config),
        per_class=_class_rows(confusion, class_names),
        confusion=confusion,
        class_names=tuple(class_names),
        confidence=config.confidence,
        predictor_fingerprint=predictor_fingerprint,
        predictions=Predictions(tuple(ids), labels, predicted, confidence),
    )


def _measure(
    probabilities: m.Floats,
    labels: NDArray[np.int64],
    confusion: NDArray[np.int64],
    class_names: Sequence[str],
    config: EvaluateConfig,
) -> dict[str, Metric]:
    resampled = m.bootstrap(labels, probabilities, config.bootstrap_samples, config.seed)
    compute = {
        "accuracy": lambda: m.accuracy(confusion),
        "macro_f1": lambda: m.macro_f1(confusion),
        "roc_auc": lambda: m.roc_auc(labels, probabilities),
        "log_loss": lambda: m.log_loss(labels, probabilities),
    }
    measured = {}
    for name in m.METRIC_NAMES:
        value: float | None = None
        try:
            value = compute[name]()
            low, high = m.interval(name, value, resampled[name], config.confidence)
            measured[name] = Metric(value, low, high)
        except m.MissingClassError as error:
            absent = ", ".join(repr(class_names[index]) for index in error.classes[:10])
            measured[name] = Metric(None, reason=f"no test images of {absent}")
        except m.UndefinedMetricError as error:
            measured[name] = Metric(value, reason=str(error))
    return measured


def _class_rows(
    confusion: NDArray[np.int64], class_names: Sequence[str]
) -> tuple[ClassMetrics, ...]:
    precision, recall, f1 = m.precision_recall_f1(confusion)

    def known(value: np.float64) -> float | None:
        return None if np.isnan(value) else float(value)

    return tuple(
        ClassMetrics(name, known(precision[i]), known(recall[i]), known(f1[i]), int(support))
        for i, (name, support) in enumerate(zip(class_names, confusion.sum(axis=1), strict=True))
    )


def _check_input(
    probabilities: m.Floats,
    labels: NDArray[np.int64],
    ids: Sequence[str],
    class_names: Sequence[str],
) -> None:
    n_images, n_classes = len(ids), len(class_names)
    if n_images == 0:
        raise m.EvaluationError("There are no test images to evaluate on.")
    if n_classes < 2 or len(set(class_names)) != n_classes:
        raise m.EvaluationError(f"Class names must be two or more and differ: {class_names!r}.")
    if probabilities.shape != (n_images, n_classes) or labels.shape != (n_images,):
        raise m.EvaluationError(
            f"{n_images} ids and {n_classes} classes do not fit probabilities of shape "
            f"{probabilities.shape} and labels of shape {labels.shape}."
        )
    if probabilities.dtype not in (np.float32, np.float64) or labels.dtype != np.int64:
        raise m.EvaluationError(
            f"Probabilities are {probabilities.dtype} and labels {labels.dtype}; expected float32 "
            "or float64, and int64."
        )
    if len(set(ids)) != n_images:
        raise m.EvaluationError("An image id stands twice among the test images.")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise m.EvaluationError(f"Labels must lie between 0 and {n_classes - 1}.")
    # Written so that a NaN fails it.
    if not (probabilities >= 0).all() or not np.allclose(
        probabilities.sum(axis=1), 1.0, rtol=0.0, atol=_SUM_TOLERANCE
    ):
        raise m.EvaluationError(
            "The predictor's probabilities are negative, NaN, or do not sum to 1."
        )


def _read_predictions(path: Path, n_classes: int) -> Predictions:
    try:
        # One file, not a data set: no other file is looked at.
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} is not a readable Parquet file: {error}") from None
    if not table.schema.equals(_SCHEMA) or any(column.null_count for column in table.columns):
        raise ArtifactError(f"{path} has other columns or types than predictions: {table.schema}")
    labels, predicted, confidence = (table.column(i).to_numpy() for i in (1, 2, 3))
    ids = tuple(table.column("id").to_pylist())
    in_range = all(((x >= 0) & (x < n_classes)).all() for x in (labels, predicted))
    if not ids or len(set(ids)) != len(ids) or not in_range or not np.isfinite(confidence).all():
        raise ArtifactError(f"{path} holds no images, one twice, or impossible values: damaged.")
    return Predictions(ids, labels, predicted, confidence)
