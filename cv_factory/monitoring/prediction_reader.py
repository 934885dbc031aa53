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
    lists: list[pa.Table] = []
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
        lists.append(predictions.select(["probabilities", "features"]))
    order, columns = _scalar_columns(scalars)
    scalars.clear()
    probabilities, features = _matrices(lists, order, names)
    n_refused, n_lost = _count(events, {"refused"}), _count(events, {"dropped", "pruned"})
    return Window(
        build_rows(names, probabilities, **columns),
        probabilities,
        features,
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


def _scalar_columns(parts: Sequence[pa.Table]) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
    """Return the order of the predictions, and the columns of ``build_rows`` that are no lists."""
    if not parts:
        return np.zeros(0, np.int64), {}
    table = pa.concat_tables(parts)
    order = _order(table.column("id"), table.column("time"))
    if len(order) < table.num_rows or not np.array_equal(order, np.arange(len(order))):
        table = table.take(pa.array(order))
    columns: dict[str, Any] = {name: pd.array(table.column(name), dtype=STRING) for name in _TEXTS}
    for name in ("unfamiliarity", *STATISTICS, "is_abstained"):
        columns[name] = table.column(name).to_numpy()
    columns["time"] = table.column("time").to_pandas()
    columns["is_cached"] = pc.fill_null(table.column("cached"), False).to_numpy()
    sampling = pc.fill_null(table.column("sampling_probability"), 1.0)
    columns["sampling_probability"] = sampling.to_numpy()
    return order, columns


def _matrices(
    parts: list[pa.Table], order: npt.NDArray[np.int64], names: Sequence[str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return probabilities and features in ``order``; empties ``parts`` to save memory."""
    n = sum(part.num_rows for part in parts)
    place = np.full(n, -1, np.int64)
    place[order] = np.arange(len(order))
    lengths = (pc.max(pc.list_value_length(part.column("features"))).as_py() for part in parts)
    n_features = max((length or 0 for length in lengths), default=0)
    probabilities = np.zeros((len(order), len(names)), np.float32)
    features = np.full((len(order), n_features), np.nan, np.float32)
    while parts:
        part = parts.pop()
        own, place = place[len(place) - part.num_rows :], place[: len(place) - part.num_rows]
        is_taken = own >= 0
        columns = [names.index(name) for name in parse_class_names(part)]
        if part.num_rows:
            probabilities[own[is_taken][:, None], columns] = get_matrix(part, "probabilities")[
                is_taken
            ]
            values = get_matrix(part, "features")[is_taken]
            features[own[is_taken], : values.shape[1]] = values
    return probabilities, features
