"""Store of labels: those that people gave, those that services received, and what was asked for.

In the stack's artifact store, as Parquet files. Labels are added, never changed, and removed only
to forget them. What services of this machine received since is read from their folders.
"""

import hashlib
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cv_factory.inference.batch_output import OutputError, OutputFolder
from cv_factory.monitoring.label_sampling import LabelQueue
from cv_factory.monitoring.labels import (
    RECORD_COLUMNS,
    SAMPLE_COLUMNS,
    Frame,
    Labels,
    build_table,
)
from cv_factory.serving.logging.feedback_log import feedback_files, read_feedback, remove_feedback
from registry import deployments
from registry.store_files import open_store_folder, store_lock

_RECORDS, _SAMPLE = "records", "sample"
_FRAME = b"frame"
_N_ATTEMPTS = 3
#: More files of labels than this become one.
_MAX_FILES = 100


class LabelStore:
    """Labels of one model in a folder."""

    def __init__(self, folder: OutputFolder) -> None:
        """Use a folder, which need not exist yet."""
        self._folder = folder

    def add(self, records: pd.DataFrame) -> int:
        """Add those labels that are not stored yet, by their ids; return how many.

        Args:
            records: Rows with ``RECORD_COLUMNS``.
        """
        new = records[~records["id"].isin(self._read_records()["id"])]
        if len(new):
            self._write(_RECORDS, new, {})
        return len(new)

    def merge(self) -> None:
        """Make one file of many; what a killed call leaves twice counts once."""
        names = self._names(_RECORDS)
        if len(names) > _MAX_FILES:
            self._write(_RECORDS, self._read_records(), {})
            for name in names:
                self._folder.remove(name)

    def add_sample(self, queue: LabelQueue) -> None:
        """Add the images that were chosen to be labelled, and what they were chosen from."""
        frame = asdict(queue.frame)
        times = {name: frame[name].isoformat() for name in ("start", "end")}
        self._write(_SAMPLE, queue.sample, {_FRAME: json.dumps({**frame, **times}).encode()})

    def load(self) -> Labels:
        """Return all labels."""
        samples = [self._read(name) for name in self._names(_SAMPLE)]
        frames = (_parse_frame(sample.schema.metadata[_FRAME]) for sample in samples)
        return Labels(
            self._read_records(),
            _to_pandas(samples, SAMPLE_COLUMNS),
            tuple(frames),
        )

    def remove(self, prediction_ids: Collection[str], image_hmacs: Collection[str]) -> int:
        """Remove the labels of predictions and images, and that they were chosen; return how many.

        The files that hold them are the only ones that are ever written anew.
        """
        n_removed = 0
        for name in (*self._names(_RECORDS), *self._names(_SAMPLE)):
            table = self._read(name)
            is_forgotten = pc.or_(
                pc.is_in(table["prediction_id"], pa.array(list(prediction_ids), pa.string())),
                pc.is_in(table["image_hmac"], pa.array(list(image_hmacs), pa.string())),
            )
            kept = table.filter(pc.invert(is_forgotten))
            if len(kept) < len(table):
                self._folder.write(name, _encode(kept))
                n_removed += len(table) - len(kept)
        return n_removed

    def _read_records(self) -> pd.DataFrame:
        for attempt in range(_N_ATTEMPTS):
            try:
                tables = [self._read(name) for name in self._names(_RECORDS)]
                break
            except OutputError:
                # Another process may have merged them meanwhile.
                if attempt == _N_ATTEMPTS - 1:
                    raise
        return _to_pandas(tables, RECORD_COLUMNS).drop_duplicates("id")

    def _names(self, kind: str) -> list[str]:
        """Return the names of the files of a kind, in the order in which they were written."""
        return sorted(name for name in self._folder.names() if name.startswith(f"{kind}-"))

    def _read(self, name: str) -> pa.Table:
        return pq.read_table(pa.BufferReader(self._folder.read(name)))

    def _write(self, kind: str, rows: pd.DataFrame, metadata: dict[bytes, bytes]) -> None:
        table = pa.Table.from_pandas(rows, preserve_index=False)
        content = _encode(table.replace_schema_metadata(metadata))
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        digest = hashlib.sha256(content).hexdigest()[:12]
        self._folder.write(f"{kind}-{now}-{digest}.parquet", content)


def open_label_store(model_name: str) -> LabelStore:
    """Open the labels of a model in the active stack's artifact store."""
    return LabelStore(open_store_folder(f"cv_factory_monitoring/{model_name}/labels"))


def load_labels(model_name: str) -> Labels:
    """Return all labels of a model, in the order in which they were given."""
    stored = open_label_store(model_name).load()
    records = pd.concat([stored.records, _read_received(model_name)], ignore_index=True)
    # The same label of one request: from the store and its file, or from a shadow's copy.
    records = records.sort_values("time", kind="stable").drop_duplicates("id", keep="last")
    return Labels(records.reset_index(drop=True), stored.sample, stored.frames)


def collect_labels(model_name: str) -> int:
    """Store the labels that services of this machine received since; return how many were new."""
    store = open_label_store(model_name)
    with store_lock(model_name):
        n_new = store.add(_read_received(model_name))
        store.merge()
    return n_new


def forget_labels(
    model_name: str, prediction_ids: Collection[str], image_hmacs: Collection[str]
) -> int:
    """Remove all labels of predictions and images, wherever they are; return how many there were.

    Args:
        model_name: The model.
        prediction_ids: Of all predictions of the images, since labels name the one or the other.
        image_hmacs: Of the images.
    """
    ids, hmacs = frozenset(prediction_ids), frozenset(image_hmacs)

    def is_forgotten(record: Mapping[str, Any]) -> bool:
        return record["prediction_id"] in ids or record["image_hmac"] in hmacs

    with store_lock(model_name):
        n_removed = sum(
            remove_feedback(folder, is_forgotten) for folder in deployments.log_folders(model_name)
        )
        return n_removed + open_label_store(model_name).remove(ids, hmacs)


def _read_received(model_name: str) -> pd.DataFrame:
    def read() -> Iterator[dict[str, Any]]:
        for folder in deployments.log_folders(model_name):
            for file in feedback_files(folder):
                with suppress(FileNotFoundError):
                    yield from read_feedback(file)

    return build_table((r for r in read() if r["model"] == model_name), RECORD_COLUMNS)


def _encode(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _to_pandas(tables: Sequence[pa.Table], columns: dict[str, Any]) -> pd.DataFrame:
    if not tables:
        return build_table([], columns)
    rows: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return rows[list(columns)].astype(columns)


def _parse_frame(content: bytes) -> Frame:
    fields = json.loads(content)
    times = {name: datetime.fromisoformat(fields[name]) for name in ("start", "end")}
    return Frame(**{**fields, **times})
