"""Reader of predictions, wherever they were logged: a window of them from tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cv_factory.data.image_manifest import STRING
from cv_factory.inference.reference import STATISTICS
from cv_factory.monitoring.prediction_table import get_matrix, parse_class_names
from cv_factory.monitoring.window import Window, build_rows

_TEXTS = ("id", "version", "arm", "request_id", "key", "image_hmac")
_SCALARS = (*_TEXTS, "time", "unfamiliarity", *STATISTICS, "cached", "sampling_probability")
#: Of a matrix that is put in order.
_COLUMNS_AT_ONCE = 8


@dataclass(frozen=True)
class Selection:
    """Predictions that a window is to hold.

    Attributes:
        model_name: The model.
        start: Time of the first; None for no bound. With a time zone.
        end: Time before which the last was; None for no bound. With a time zone.
        version: Number of their version, as text; None for all.
    """

    model_name: str
    start: datetime | None = None
    end: datetime | None = None
    version: str | None = None

    def apply(self, table: pa.Table) -> pa.Table:
        """Return the rows of a table that belong to it."""
        mask = pc.equal(table.column("model"), self.model_name)
        time = table.column("time")
        if self.start is not None:
            mask = pc.and_(mask, pc.greater_equal(time, pa.scalar(self.start, time.type)))
        if self.end is not None:
            mask = pc.and_(mask, pc.less(time, pa.scalar(self.end, time.type)))
        if self.version is not None:
            mask = pc.and_(mask, pc.equal(table.column("version"), self.version))
        return table.filter(mask)


def build_window(
    tables: Iterable[pa.Table], selection: Selection, class_names: Sequence[str]
) -> Window:
    """Build a window; a line that two tables hold is taken once.

    Args:
        tables: See ``cv_factory.monitoring.prediction_table``; read one after the other.
        selection: What to take of them.
        class_names: Names of the columns of ``probabilities``, followed by those of further
            classes that a table has.

    Returns:
        The predictions in order of time. Where versions have different numbers of features, the
        last of the shorter ones are NaN.
    """
    scalars: list[pa.Table] = []
    probabilities, features = _GrowingMatrix(0.0), _GrowingMatrix(np.nan)
    names, knows_refused, events = list(class_names), False, []
    for table in tables:
        rows = selection.apply(table)
        names += [name for name in parse_class_names(rows) if name not in names]
        is_event = pc.is_valid(rows.column("event"))
        events += rows.filter(is_event).select(["id", "event", "n"]).to_pylist()
        # Lines of schema version 1 have no sampling probability, and know no refused images.
        knows_refused |= rows.column("sampling_probability").null_count < rows.num_rows
        predictions = rows.filter(pc.invert(is_event))
        is_abstained = predictions.column("label").is_null()
        scalars.append(predictions.select(_SCALARS).append_column("is_abstained", is_abstained))
        columns = [names.index(name) for name in parse_class_names(rows)]
        probabilities.append(get_matrix(predictions, "probabilities"), columns)
        values = get_matrix(predictions, "features")
        features.append(values, range(values.shape[1]))
    order, scalar_columns = _scalar_columns(scalars)
    matrices = probabilities.take(order, len(names)), features.take(order)
    # What Arrow keeps for itself would count as this process's for good.
    pa.default_memory_pool().release_unused()
    n_refused, n_lost = _count(events, {"refused"}), _count(events, {"dropped", "pruned"})
    return Window(
        build_rows(names, matrices[0], **scalar_columns),
        *matrices,
        tuple(names),
        n_refused if knows_refused else None,
        n_lost,
    )


def _count(events: Iterable[Mapping[str, Any]], kinds: set[str]) -> int:
    """Return the number of images or lines that distinct events of some kinds stand for."""
    return sum({event["id"]: event["n"] for event in events if event["event"] in kinds}.values())


def _order(ids: pa.ChunkedArray, time: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return the positions of distinct predictions, by time."""
    times = time.cast(pa.int64()).to_numpy()
    if pc.count_distinct(ids).as_py() == len(ids):
        return np.argsort(times, kind="stable")
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    _, positions = np.unique(codes, return_index=True)
    positions.sort()
    return np.asarray(positions[np.argsort(times[positions], kind="stable")], np.int64)


def _scalar_columns(parts: list[pa.Table]) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
    """Return the order of the predictions, and the columns of ``build_rows`` that are no lists.

    Empties ``parts``: no more than one column is in memory twice.
    """
    if not parts:
        return np.zeros(0, np.int64), {}
    table = pa.concat_tables(parts)
    parts.clear()
    order = _order(table.column("id"), table.column("time"))
    is_ordered = np.array_equal(order, np.arange(table.num_rows))
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        table = table.drop_columns(name)
        if name in _TEXTS:
            column = column.cast(pa.large_string())
        column = column.combine_chunks()
        columns[name] = _convert(name, column if is_ordered else column.take(pa.array(order)))
    columns["is_cached"] = columns.pop("cached")
    return order, columns


def _convert(name: str, column: pa.Array) -> Any:
    """Return a column as a window has it."""
    if name in _TEXTS:
        return pd.array(column, dtype=STRING)
    if name == "time":
        return column.to_pandas()
    missing = {"cached": False, "sampling_probability": 1.0}
    if name in missing:
        column = pc.fill_null(column, missing[name])
    return column.to_numpy(zero_copy_only=False)


class _GrowingMatrix:
    """Float32 matrix that grows in place, so that it is never in memory twice.

    Attributes:
        fill: What is missing where parts have different columns.
    """

    def __init__(self, fill: float) -> None:
        self.fill = fill
        self._values = np.empty((0, 0), np.float32)
        self._n = 0

    def append(self, part: npt.NDArray[np.float32], columns: Sequence[int]) -> None:
        """Add rows whose values belong to some columns."""
        self._widen(max(columns, default=-1) + 1)
        end, width = self._n + len(part), self._values.shape[1]
        if end > len(self._values):
            # In place: the pages of a large block are moved, not copied.
            self._values.resize((max(end, len(self._values) * 9 // 8), width), refcheck=False)
        added = self._values[self._n : end]
        if len(columns) < width:
            added[:] = self.fill
        if len(part):
            added[:, list(columns)] = part
        self._n = end

    def take(self, order: npt.NDArray[np.int64], width: int = 0) -> npt.NDArray[np.float32]:
        """Return distinct rows in an order, with at least so many columns; it is empty then."""
        self._widen(width)
        values, self._values = self._values, np.empty((0, 0), np.float32)
        if not np.array_equal(order, np.arange(self._n)):
            for start in range(0, values.shape[1], _COLUMNS_AT_ONCE):
                columns = slice(start, start + _COLUMNS_AT_ONCE)
                values[: len(order), columns] = values[order, columns]
        values.resize((len(order), values.shape[1]), refcheck=False)
        return values

    def _widen(self, width: int) -> None:
        if width > self._values.shape[1]:
            wider = np.full((len(self._values), width), self.fill, np.float32)
            wider[: self._n, : self._values.shape[1]] = self._values[: self._n]
            self._values = wider
