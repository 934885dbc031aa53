"""Labels from the field: joined with predictions, and which of them were asked for.

A label is of an image, so that one of a prediction holds for every prediction of the same image,
such as that of a shadow. The last label of an image counts; one by a model only where there is no
other.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cv_factory.data.image_manifest import STRING
from cv_factory.monitoring.report import Coverage
from cv_factory.monitoring.timeline import compute_coverage
from cv_factory.monitoring.window import UNKNOWN_CLASS, Window
from cv_factory.serving.label_record import Label

#: Beginning of the sources of labels that a model made.
MODEL_SOURCE = "model:"
_TIME = "datetime64[ms, UTC]"
#: Columns of labels, a row each time that one was given; see ``cv_factory.serving.label_record``.
RECORD_COLUMNS: dict[str, Any] = {
    "id": STRING,
    "time": _TIME,
    "prediction_id": STRING,
    "image_hmac": STRING,
    "model": STRING,
    "label": STRING,
    "source": STRING,
    "is_blind": "bool",
    "key": STRING,
}
_IMAGE_COLUMNS = {"prediction_id": STRING, "image_hmac": STRING}
#: Columns of the images that were chosen to be labelled, a row each time that one was.
SAMPLE_COLUMNS: dict[str, Any] = {
    "time": _TIME,
    "prediction_id": STRING,
    "image_hmac": STRING,
    "stratum": STRING,
    "inclusion_probability": "float64",
}


@dataclass(frozen=True)
class Frame:
    """Predictions that a sample was drawn from.

    Attributes:
        start: Time of the first.
        end: Time before which the last was.
        version: Number of their version, as text; None for all.
        uniform_probability: With which each of their images was chosen whatever was predicted.
        disagreement_probability: With which those were that versions disagree about.
        uncertainty_factor: By the uncertainty of a prediction, the probability of its image.
    """

    start: datetime
    end: datetime
    version: str | None
    uniform_probability: float
    disagreement_probability: float = 0.0
    uncertainty_factor: float = 0.0

    def contains(self, rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which rows of a window belong to it, bool ``(N,)``."""
        mask = (rows["time"] >= self.start) & (rows["time"] < self.end)
        if self.version is not None:
            mask &= rows["version"] == self.version
        return mask.to_numpy(bool)


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of a model's predictions.

    Attributes:
        records: Rows with ``RECORD_COLUMNS``, in the order in which they count.
        sample: Rows with ``SAMPLE_COLUMNS``.
        frames: What the samples were drawn from.
    """

    records: pd.DataFrame
    sample: pd.DataFrame
    frames: tuple[Frame, ...] = ()

    def complete(self, hmacs: Mapping[str, str | None]) -> Self:
        """Return the labels with the HMACs of the images whose predictions they name."""
        by_id = self.records["prediction_id"].map(hmacs).astype(STRING)
        image_hmac = self.records["image_hmac"].fillna(by_id)
        return replace(self, records=self.records.assign(image_hmac=image_hmac))


@dataclass(frozen=True)
class LabelReport:
    """What was given, and what it says about.

    Attributes:
        n_records: Number of labels that were given, corrections included.
        n_labeled: Number of predictions of the window that have a label.
        n_unmatched: Number of labels of no prediction of the window.
        unmatched: Some of their prediction ids or HMACs.
        unknown_classes: How often each label was given that is no class of the model.
        sources: How many labeled predictions have their label from a ``person``, ``system``, or
            ``model``.
        n_not_blind: Number of labeled predictions whose label was given in view of the prediction.
        coverage: Labels by day and version.
    """

    n_records: int
    n_labeled: int
    n_unmatched: int
    unmatched: tuple[str, ...]
    unknown_classes: Mapping[str, int]
    sources: Mapping[str, int]
    n_not_blind: int
    coverage: tuple[Coverage, ...]


def build_table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return rows as a table with these columns and types; other keys are left out."""
    table = pd.DataFrame(list(rows), columns=list(columns))
    if "time" in columns:
        table["time"] = pd.to_datetime(table["time"], utc=True, format="ISO8601")
    return table.astype(dict(columns))


def join_labels(window: Window, labels: Labels) -> Window:
    """Return a window with its labels, and the probabilities with which they were asked for."""
    matches = _match(window, labels)
    rows = window.rows.copy(deep=False)
    is_labeled = matches.record >= 0
    records = labels.records.iloc[matches.record[is_labeled]]
    classes = _class_numbers(records["label"], window.class_names)
    rows["label"] = _fill(len(rows), is_labeled, classes, -1)
    rows["is_blind"] = _fill(len(rows), is_labeled, records["is_blind"].to_numpy(), False)
    for column, source in (("label_source", "source"), ("label_time", "time")):
        values = records[source].reset_index(drop=True)
        rows[column] = values.reindex(_positions(is_labeled)).set_axis(rows.index)
    is_sampled = matches.stratum >= 0
    strata = pd.Series(_STRATA, dtype=STRING)
    rows["stratum"] = strata.reindex(matches.stratum).set_axis(rows.index)
    rows["inclusion_probability"] = np.where(is_sampled, matches.probability, np.nan)
    rows["uniform_probability"] = _find_uniform_probability(rows, labels.frames)
    return replace(window, rows=rows)


def _find_uniform_probability(
    rows: pd.DataFrame, frames: Sequence[Frame]
) -> npt.NDArray[np.float64]:
    """Return with which probability each row is chosen whatever was predicted; NaN in no frame."""
    probability = np.full(len(rows), np.nan)
    for frame in frames:
        inside = frame.contains(rows)
        probability[inside] = np.fmax(probability[inside], frame.uniform_probability)
    return probability


def find_unmatched(window: Window, labels: Sequence[Label]) -> list[int]:
    """Return the positions of labels that belong to no prediction of a window."""
    rows = build_table((label.model_dump() for label in labels), _IMAGE_COLUMNS)
    return [int(position) for position in _find_unmatched(window, rows)]


def describe_labels(window: Window, labels: Labels) -> LabelReport:
    """Describe the labels of a window that they were joined with."""
    records = labels.records
    unmatched = records.iloc[_find_unmatched(window, records)]
    names = unmatched["prediction_id"].fillna(unmatched["image_hmac"])
    is_unknown = _class_numbers(records["label"], window.class_names) == UNKNOWN_CLASS
    has_label = window.has_label
    rows = window.rows[has_label]
    kinds = (source.partition(":")[0] for source in rows["label_source"])
    return LabelReport(
        n_records=len(records),
        n_labeled=int(has_label.sum()),
        n_unmatched=len(unmatched),
        unmatched=tuple(names.drop_duplicates().head(10)),
        unknown_classes=dict(Counter(records["label"][is_unknown])),
        sources=dict(Counter(kinds)),
        n_not_blind=int((~rows["is_blind"]).sum()),
        coverage=compute_coverage(window),
    )


def encode_images(rows: pd.DataFrame) -> tuple[npt.NDArray[np.int64], pa.StringArray]:
    """Return a number for the image of each row of a window, and the images' names.

    Returns:
        Positions in the names, int64 ``(N,)``; the names are HMACs or, where an image has none,
        ids of predictions.
    """
    ids, hmacs = _arrow(rows["id"]), _arrow(rows["image_hmac"])
    encoded = pc.coalesce(hmacs, ids).dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary


_STRATA = ("uncertain", "disagreement", "uniform")  # the last one that an image is in counts


@dataclass(frozen=True)
class _Matches:
    """What belongs to the N rows of a window.

    Attributes:
        record: Position of the last label, -1 if there is none.
        stratum: Position in ``_STRATA``, -1 if it was not asked for.
        probability: With which it was asked for; 0 if it was not.
    """

    record: npt.NDArray[np.int64]
    stratum: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]


def _match(window: Window, labels: Labels) -> _Matches:
    images, names = encode_images(window.rows)
    ids = _arrow(window.rows["id"])
    record = np.full(len(names), -1, np.int64)
    record_images = _find_images(labels.records, ids, images, names)
    is_matched = record_images >= 0
    by_model = labels.records["source"].str.startswith(MODEL_SOURCE).to_numpy(bool)
    for counted in (is_matched & by_model, is_matched & ~by_model):
        # Of what is assigned to one place several times, the last stays.
        record[record_images[counted]] = np.flatnonzero(counted)
    sample_images = _find_images(labels.sample, ids, images, names)
    is_sampled = sample_images >= 0
    stratum = np.full(len(names), -1, np.int64)
    probability = np.zeros(len(names))
    strata = _index_in(labels.sample["stratum"], pa.array(_STRATA))
    np.maximum.at(stratum, sample_images[is_sampled], strata[is_sampled])
    probabilities = labels.sample["inclusion_probability"].to_numpy()
    np.maximum.at(probability, sample_images[is_sampled], probabilities[is_sampled])
    return _Matches(record[images], stratum[images], probability[images])


def _find_unmatched(window: Window, table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the positions of the rows of a table that belong to no prediction of a window."""
    images, names = encode_images(window.rows)
    return np.flatnonzero(_find_images(table, _arrow(window.rows["id"]), images, names) < 0)


def _find_images(
    table: pd.DataFrame, ids: pa.Array, images: npt.NDArray[np.int64], names: pa.Array
) -> npt.NDArray[np.int64]:
    """Return the number of the image of each row of a table, -1 where the window has none."""
    by_id = _index_in(table["prediction_id"], ids)
    by_hmac = _index_in(table["image_hmac"], names)
    return np.where(by_id >= 0, images[by_id] if len(images) else -1, by_hmac)


def _class_numbers(labels: pd.Series, class_names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    numbers = _index_in(labels, pa.array(class_names, pa.string()))
    return np.where(numbers < 0, UNKNOWN_CLASS, numbers)


def _index_in(values: pd.Series, names: pa.Array) -> npt.NDArray[np.int64]:
    """Return the position of each value among names, the first of equals, -1 where it is none."""
    asked = _arrow(values)
    distinct = asked.unique().drop_null()
    # Names are looked up among the values: a table of a million names takes 100 MB.
    places = np.full(len(distinct) + 1, -1, np.int64)  # the last one for what is null
    numbers = _index(names.cast(pa.large_string()), distinct)
    positions = np.flatnonzero(numbers >= 0)[::-1]
    places[numbers[positions]] = positions
    return places[_index(asked, distinct)]


def _index(values: pa.Array, names: pa.Array) -> npt.NDArray[np.int64]:
    numbers = pc.fill_null(pc.index_in(values, names, skip_nulls=True), -1)
    return np.asarray(numbers.to_numpy(zero_copy_only=False), np.int64)


def _arrow(values: pd.Series) -> pa.Array:
    """Return texts in one piece of Arrow's memory."""
    array = pa.array(values, pa.large_string(), from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _fill(n: int, mask: npt.NDArray[np.bool_], values: Any, default: Any) -> npt.NDArray[Any]:
    """Return N values: those given where the mask holds, else the default."""
    filled = np.full(n, default, np.asarray(values).dtype)
    filled[mask] = values
    return filled


def _positions(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return for each place where the mask holds the number of those before it, else -1."""
    return np.where(mask, np.cumsum(mask) - 1, -1)
