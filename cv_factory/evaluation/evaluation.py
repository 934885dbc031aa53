"""The ``Evaluation``: what a predictor got right and wrong on test images, and how sure that is.

Values and their format on disk; ``evaluate_predictor`` and ``evaluate_probabilities`` compute them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cv_factory.artifacts.arrays import load_array
from cv_factory.artifacts.artifact import Artifact
from cv_factory.errors import ArtifactError
from cv_factory.evaluation import intervals
from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.behavior import FILE as SAMPLES
from cv_factory.evaluation.behavior import Behavior, BehaviorBody
from cv_factory.evaluation.metrics import metric_names
from cv_factory.evaluation.slices import SliceMetrics, measure_slices

_PREDICTIONS, _PROBABILITIES = "predictions.parquet", "probabilities.npy"
#: Every evaluation of this format has these. Added metrics are in those evaluations alone that were
#: made while the metric was there.
_METRICS = frozenset(
    [
        "accuracy",
        "macro_precision",
        "macro_recall",
        "macro_f1",
        "top_k_accuracy",
        "roc_auc",
        "pr_auc",
        "log_loss",
        "brier",
        "expected_calibration_error",
    ]
)
# Columns of slices follow the four of every evaluation.
_SLICE_PREFIX = "slice:"
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.int64()),
        ("predicted", pa.int64()),
        ("confidence", pa.float64()),
    ]
)


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


Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassMetrics:
    """One class's row: None for precision if never predicted, for recall if without images.

    Each figure has an interval where it has a value (Wilson's, for F1 transformed).
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    precision_interval: Interval | None
    recall_interval: Interval | None
    f1_interval: Interval | None


@dataclass(frozen=True)
class CalibrationBin:
    """The images whose confidence lies in a range: their mean confidence, and their accuracy."""

    low: float
    high: float
    n_images: int
    confidence: float
    accuracy: float
    accuracy_interval: Interval


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for the test images.

    Attributes:
        ids: Ids of the images, N of them, each once.
        labels: True classes, int64 ``(N,)``.
        predicted: Predicted classes, int64 ``(N,)``.
        confidence: Probability of the predicted class, float64 ``(N,)``.
        probabilities: Of all classes, float32 or float64 ``(N, K)``.
        slices: By column, the part that each image belongs to, N values.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    probabilities: m.Floats
    slices: Mapping[str, tuple[str, ...]]

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether each image's class was predicted, bool ``(N,)``."""
        return np.asarray(self.labels == self.predicted)

    @property
    def label_by_id(self) -> dict[str, int]:
        """True class of each image: equal where two test sets are, whatever their order."""
        return dict(zip(self.ids, self.labels.tolist(), strict=True))

    def in_slice(self, column: str, value: str) -> NDArray[np.bool_]:
        """Return which images belong to a slice, bool ``(N,)``."""
        return np.array([part == value for part in self.slices[column]], dtype=bool)


@dataclass(frozen=True, eq=False)
class Evaluation(Artifact):
    """The measured quality of one predictor on one set of test images.

    Attributes:
        metrics: By name, those of ``metric_names()`` at the time of the evaluation.
        per_class: One row for each class, in the order of ``class_names``.
        slices: Parts of the test images, the worst accuracy first.
        confusion: Counts by true class (rows) and predicted class (columns), int64 ``(K, K)``.
        class_names: K names.
        confidence: Level of the intervals, such as 0.95.
        top_k: The k of the top-k accuracy.
        calibration_bins: Bins of the calibration error.
        min_slice_images: Slices of fewer images are neither ranked nor gated.
        predictor_fingerprint: Which predictor this is about.
        predictions: What was predicted for each image.
        behavior: Results of the behavioral checks.
        has_clipped_log_loss: Whether log losses are ``clipped_image_log_losses``, as in evaluations
            stored before there were others.
    """

    KIND: ClassVar[str] = "evaluation"
    FORMAT_VERSION: ClassVar[int] = 2

    metrics: Mapping[str, Metric]
    per_class: tuple[ClassMetrics, ...]
    slices: tuple[SliceMetrics, ...]
    confusion: NDArray[np.int64]
    class_names: tuple[str, ...]
    confidence: float
    top_k: int
    calibration_bins: int
    min_slice_images: int
    predictor_fingerprint: str
    predictions: Predictions
    behavior: Behavior
    has_clipped_log_loss: bool = False

    @property
    def n_images(self) -> int:
        """The number of test images, N."""
        return len(self.predictions.ids)

    @property
    def ranked_slices(self) -> tuple[SliceMetrics, ...]:
        """The slices that are large enough to be judged, the worst accuracy first."""
        return tuple(s for s in self.slices if s.n_images >= self.min_slice_images)

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

    def calibration(self) -> tuple[CalibrationBin, ...]:
        """Return the bins of confidence that hold images, the lowest confidence first."""
        p, n = self.predictions, self.calibration_bins
        bins = m.calibration_bins(p.confidence, n)
        rows = []
        for k in np.unique(bins):
            of_bin = bins == k
            hits, size = int(p.is_right[of_bin].sum()), int(of_bin.sum())
            rows.append(
                CalibrationBin(
                    low=float(k / n),
                    high=float((k + 1) / n),
                    n_images=size,
                    confidence=float(p.confidence[of_bin].mean()),
                    accuracy=hits / size,
                    accuracy_interval=intervals.wilson(hits, size, self.confidence),
                )
            )
        return tuple(rows)

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        _write_predictions(self.predictions, directory)
        self.behavior.save_arrays(directory)
        return {_PREDICTIONS: None, _PROBABILITIES: None, SAMPLES: None}

    def _header(self) -> dict[str, Any]:
        return {
            "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
            "per_class": [asdict(row) for row in self.per_class],
            "slices": [asdict(row) for row in self.slices],
            "class_names": list(self.class_names),
            "confidence": self.confidence,
            "top_k": self.top_k,
            "calibration_bins": self.calibration_bins,
            "min_slice_images": self.min_slice_images,
            "predictor_fingerprint": self.predictor_fingerprint,
            "has_clipped_log_loss": self.has_clipped_log_loss,
            "behaviour": self.behavior.to_body().to_json(),
        }

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        header = _Body.model_validate_json(json.dumps(body))
        n_classes = len(header.class_names)
        p = _read_predictions(directory, n_classes)
        confusion = m.confusion_matrix(p.labels, p.predicted, n_classes)
        is_clipped = header.has_clipped_log_loss
        log_losses = m.clipped_image_log_losses if is_clipped else m.image_log_losses
        losses = log_losses(p.labels, p.probabilities)
        rows, slices = tuple(header.per_class), tuple(header.slices)
        if (
            not header.metrics.keys() >= _METRICS
            or header.metrics["accuracy"].value != m.accuracy(confusion)
            or rows != class_rows(confusion, header.class_names, header.confidence)
            or slices != measure_slices(p.slices, p.is_right, losses, header.confidence)
        ):
            raise ArtifactError(
                f"{directory / cls.KIND}.json does not agree with {_PREDICTIONS} beside it: "
                "the artifact is damaged."
            )
        in_order = {n: header.metrics[n] for n in metric_names() if n in header.metrics}
        return cls(
            metrics=in_order | header.metrics,
            per_class=rows,
            slices=slices,
            confusion=confusion,
            class_names=tuple(header.class_names),
            confidence=header.confidence,
            top_k=header.top_k,
            calibration_bins=header.calibration_bins,
            min_slice_images=header.min_slice_images,
            predictor_fingerprint=header.predictor_fingerprint,
            predictions=p,
            behavior=Behavior.load(directory, header.behaviour),
            has_clipped_log_loss=is_clipped,
        )


class _Body(BaseModel):
    """The header's body, as strictly typed as a configuration."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    metrics: dict[str, Metric]
    per_class: list[ClassMetrics]
    slices: list[SliceMetrics]
    class_names: list[str]
    confidence: float
    top_k: int
    calibration_bins: int
    min_slice_images: int
    predictor_fingerprint: str
    has_clipped_log_loss: bool = True
    behaviour: BehaviorBody  # its name on disk


def class_rows(
    confusion: NDArray[np.int64], class_names: Sequence[str], confidence: float
) -> tuple[ClassMetrics, ...]:
    """Return each class's precision, recall and F1 with their intervals.

    Args:
        confusion: Counts by true and predicted class, int64 ``(K, K)``.
        class_names: K names.
        confidence: Of the intervals.
    """
    hits, predicted, support = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    figures = m.precision_recall_f1(confusion)
    rows = []
    for i, name in enumerate(class_names):
        precision, recall, f1 = (None if np.isnan(f[i]) else float(f[i]) for f in figures)
        hit, n_predicted, n = int(hits[i]), int(predicted[i]), int(support[i])
        either = n + n_predicted - 2 * hit
        rows.append(
            ClassMetrics(
                name,
                precision,
                recall,
                f1,
                n,
                intervals.wilson(hit, n_predicted, confidence) if n_predicted else None,
                intervals.wilson(hit, n, confidence) if n else None,
                intervals.f1_interval(hit, either, confidence) if hit + either else None,
            )
        )
    return tuple(rows)


def _write_predictions(predictions: Predictions, directory: Path) -> None:
    p = predictions
    columns = {f"{_SLICE_PREFIX}{name}": list(values) for name, values in p.slices.items()}
    table = pa.table(
        [
            pa.array(p.ids, pa.string()),
            p.labels,
            p.predicted,
            p.confidence,
            *(pa.array(values, pa.string()) for values in columns.values()),
        ],
        schema=_schema(list(columns)),
    )
    pq.write_table(table, directory / _PREDICTIONS, compression="zstd")
    np.save(directory / _PROBABILITIES, p.probabilities, allow_pickle=False)


def _schema(slice_columns: Sequence[str]) -> pa.Schema:
    return pa.schema([*_SCHEMA, *((name, pa.string()) for name in slice_columns)])


def _read_predictions(directory: Path, n_classes: int) -> Predictions:
    path = directory / _PREDICTIONS
    try:
        # One file, not a data set: no other file is looked at.
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} is not a readable Parquet file: {error}") from None
    cut = [name for name in table.column_names if name.startswith(_SLICE_PREFIX)]
    if not table.schema.equals(_schema(cut)) or any(c.null_count for c in table.columns):
        raise ArtifactError(f"{path} has other columns or types than predictions: {table.schema}")
    labels, predicted, confidence = (table.column(i).to_numpy() for i in (1, 2, 3))
    ids = tuple(table.column("id").to_pylist())
    in_range = all(((x >= 0) & (x < n_classes)).all() for x in (labels, predicted))
    if not ids or len(set(ids)) != len(ids) or not in_range or not np.isfinite(confidence).all():
        raise ArtifactError(f"{path} holds no images, one twice, or impossible values: damaged.")
    probabilities = load_array(directory / _PROBABILITIES, mmap=False)
    if (
        probabilities.dtype not in (np.float32, np.float64)
        or probabilities.shape != (len(ids), n_classes)
        or (probabilities.argmax(axis=1) != predicted).any()
    ):
        raise ArtifactError(f"{directory / _PROBABILITIES} does not agree with {_PREDICTIONS}.")
    slices = {n.removeprefix(_SLICE_PREFIX): tuple(table.column(n).to_pylist()) for n in cut}
    return Predictions(ids, labels, predicted, confidence, probabilities, slices)
