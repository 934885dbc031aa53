"""Erasure of predictions from logs and stores, as if they had never been logged.

A log file is replaced as a whole, so that a service that writes meanwhile loses no other line.
"""

import fcntl
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cv_factory.artifacts.files import write_atomic
from cv_factory.inference.batch_output import OutputFolder
from cv_factory.monitoring.compaction import DAMAGED, maintenance_lock, table_names
from cv_factory.monitoring.prediction_table import encode_parquet
from cv_factory.serving.logging.prediction_log import find_log_files

_TIME = re.compile(rb'"time": ?"([^"]+)"')
_HMAC = re.compile(rb'"image_hmac": ?"([0-9a-f]{64})"')
_MODEL = re.compile(rb'"model": ?"([^"]*)"')


@dataclass(frozen=True)
class Criteria:
    """Which predictions are to be erased: those of some images, and those before a time.

    Attributes:
        model_name: The model.
        hmacs: Of the images.
        before: Time before which everything is erased, with a time zone; None for no bound.
    """

    model_name: str
    hmacs: frozenset[str] = frozenset()
    before: datetime | None = None

    def match_line(self, line: bytes) -> bool:
        """Whether a line of a log, damaged or not, is to be erased.

        One that is damaged so that it names no time counts as old.
        """
        model = _MODEL.search(line)
        if model is not None and json.loads(b'"' + model[1] + b'"') != self.model_name:
            return False
        hmac = _HMAC.search(line)
        return (hmac is not None and hmac[1].decode() in self.hmacs) or (
            self.before is not None and _parse_time(line) < self.before
        )

    def match_rows(self, table: pa.Table) -> pa.ChunkedArray:
        """Return which rows of a table are to be erased, booleans."""
        hmacs = pa.array(sorted(self.hmacs), pa.string())
        mask = pc.is_in(table.column("image_hmac"), hmacs)
        if self.before is not None:
            time = table.column("time")
            mask = pc.or_(mask, pc.less(time, pa.scalar(self.before, time.type)))
        return mask


@dataclass
class Erasure:
    """What was erased.

    Attributes:
        n_lines: Number of lines and rows; one that was in the log and the store counts twice.
        ids: Of the predictions.
        hmacs: Of their images.
        other_hmacs: Of images of predictions that stay.
    """

    n_lines: int = 0
    ids: set[str] = field(default_factory=set)
    hmacs: set[str] = field(default_factory=set)
    other_hmacs: set[str] = field(default_factory=set)

    def add(self, erased: list[dict[str, Any]], other_hmacs: set[str]) -> None:
        """Count some predictions, each with ``id`` and ``image_hmac``."""
        self.n_lines += len(erased)
        self.ids |= {row["id"] for row in erased if row.get("id")}
        self.hmacs |= {row["image_hmac"] for row in erased if row.get("image_hmac")}
        self.other_hmacs |= other_hmacs


def erase_from_log(folder: Path, criteria: Criteria, erasure: Erasure) -> None:
    """Erase lines of a prediction log.

    Raises:
        OSError: A file cannot be written.
    """
    if not folder.is_dir():
        return
    with maintenance_lock(folder):
        for file in find_log_files(folder):
            _erase_from_file(file, criteria, erasure)


def erase_from_store(store: OutputFolder, criteria: Criteria, erasure: Erasure) -> None:
    """Erase rows of the compacted tables, and damaged lines.

    Raises:
        OutputError: The store cannot be read or written.
    """
    for name in table_names(store):
        table = pq.read_table(io.BytesIO(store.read(name)))
        mask = criteria.match_rows(table)
        columns = table.select(["id", "image_hmac"])
        kept = table.filter(pc.invert(mask))
        others = set(kept.column("image_hmac").drop_null().to_pylist())
        erasure.add(columns.filter(mask).to_pylist(), others)
        if kept.num_rows == 0:
            store.remove(name)
        elif kept.num_rows < table.num_rows:
            store.write(name, encode_parquet(kept))
    for name in sorted(name for name in store.names() if DAMAGED.fullmatch(name)):
        content = store.read(name)
        kept_lines = b"".join(_filter(content, criteria, erasure))
        if not kept_lines:
            store.remove(name)
        elif kept_lines != content:
            store.write(name, kept_lines)


def _erase_from_file(file: Path, criteria: Criteria, erasure: Erasure) -> None:
    with suppress(FileNotFoundError), file.open("r+b") as opened:  # or it was pruned meanwhile
        # Who writes holds a shared lock, and begins the file anew if it was replaced.
        fcntl.flock(opened, fcntl.LOCK_EX)
        if not os.fstat(opened.fileno()).st_nlink:
            _erase_from_file(file, criteria, erasure)
            return
        content = opened.read()
        kept = b"".join(_filter(content, criteria, erasure))
        if kept == content:
            return
        status = os.fstat(opened.fileno())
        if kept:
            write_atomic(file, kept, mode=stat.S_IMODE(status.st_mode))
            # By its time a file is closed.
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        else:
            file.unlink()


def _filter(content: bytes, criteria: Criteria, erasure: Erasure) -> Iterator[bytes]:
    """Yield the lines that stay, and count the others."""
    for line in content.splitlines(keepends=True):
        hmac = _HMAC.search(line)
        named = hmac[1].decode() if hmac else None
        if criteria.match_line(line):
            erasure.add([{"id": _parse_id(line), "image_hmac": named}], set())
        else:
            erasure.add([], {named} if named else set())
            yield line


def _parse_id(line: bytes) -> str | None:
    match = re.search(rb'"id": ?"([^"]*)"', line)
    return match[1].decode(errors="replace") if match else None


def _parse_time(line: bytes) -> datetime:
    """Return the time that a line names, or the beginning of all."""
    match = _TIME.search(line)
    if match is not None:
        with suppress(ValueError):
            return datetime.fromisoformat(match[1].decode())
    return datetime.min.replace(tzinfo=UTC)
