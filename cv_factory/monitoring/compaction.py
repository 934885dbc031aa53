"""Compaction of prediction logs: closed files become Parquet in the store of monitoring.

It may be killed anywhere and repeated: a log file is removed after its table is stored and only if
nothing was added meanwhile. What is stored twice is read once, by the ids of its lines.
"""

import fcntl
import hashlib
import io
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cv_factory.artifacts.files import file_lock
from cv_factory.inference.batch_output import OutputFolder
from cv_factory.monitoring.prediction_reader import Selection
from cv_factory.monitoring.prediction_table import encode_parquet, parse_log, read_blocks
from cv_factory.serving.logging.prediction_log import find_log_files

#: A file that is not the last of its process is closed, and one that was not written for so long.
_IDLE_S = 3600.0
#: Names of the files with lines that could not be parsed.
DAMAGED = re.compile(r"damaged-[0-9a-f]{32}\.jsonl")
_TIME = "%Y%m%dT%H%M%S"
_NAME = re.compile(r"predictions-(\d{8}T\d{6})-(\d{8}T\d{6})-[0-9a-f]{32}\.parquet")


@dataclass(frozen=True)
class Compaction:
    """What was compacted.

    Attributes:
        n_files: Number of log files.
        n_lines: Number of their lines, events included.
        n_lost: Number of predictions that these say were lost before: dropped or pruned.
        n_damaged: Number of lines that could not be parsed, and are stored as they are.
    """

    n_files: int = 0
    n_lines: int = 0
    n_lost: int = 0
    n_damaged: int = 0

    def __add__(self, other: "Compaction") -> "Compaction":
        """Return the sum."""
        return Compaction(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(Compaction))
        )


def compact(
    folder: Path, store: OutputFolder, model_name: str, class_names: Sequence[str]
) -> Compaction:
    """Move the closed files of a model's prediction log into the store.

    Args:
        folder: Of the log; other models may write there as well.
        store: Folder of the tables.
        model_name: The model.
        class_names: Order of the classes in lines of schema version 1.

    Raises:
        OutputError: The store cannot be written; nothing is lost.
    """
    total = Compaction()
    if folder.is_dir():
        with maintenance_lock(folder):
            for file in _closed_files(folder):
                total += _compact_file(file, store, model_name, class_names)
    return total


def maintenance_lock(folder: Path) -> AbstractContextManager[None]:
    """Return the lock under which lines are moved out of a prediction log, or erased."""
    return file_lock(folder / "maintenance")


def read_logs(
    folders: Sequence[Path], class_names: Sequence[str]
) -> Iterator[tuple[Path, pa.Table, int]]:
    """Yield parts of some prediction logs: file, table, and number of damaged lines."""
    for folder in folders:
        for file in find_log_files(folder):
            with suppress(FileNotFoundError):  # pruned or compacted meanwhile
                for block in read_blocks(file):
                    table, damaged = parse_log(block, class_names)
                    yield file, table, len(damaged)


def read_store(store: OutputFolder, selection: Selection) -> Iterator[pa.Table]:
    """Yield the stored tables that may have something of a selection.

    Raises:
        OutputError: The store cannot be read.
    """
    for name in sorted(store.names()):
        match = _NAME.fullmatch(name)
        if match is not None and _overlaps(match, selection):
            yield pq.read_table(io.BytesIO(store.read(name)))


def table_names(store: OutputFolder) -> list[str]:
    """Return the names of the stored tables, the oldest first."""
    return sorted(name for name in store.names() if _NAME.fullmatch(name))


def _closed_files(folder: Path) -> list[Path]:
    files = find_log_files(folder)
    # The names are predictions-START-PROCESS.jsonl, in order.
    last = {file.stem.rpartition("-")[2]: file for file in files}
    oldest_open = time.time() - _IDLE_S
    return [file for file in files if file not in last.values() or _modified(file) < oldest_open]


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # pruned or compacted meanwhile
        return time.time()


def _compact_file(
    file: Path, store: OutputFolder, model_name: str, class_names: Sequence[str]
) -> Compaction:
    with suppress(FileNotFoundError), file.open("r+b") as opened:  # or it was pruned meanwhile
        content = opened.read()
        table, damaged = parse_log(content, class_names)
        # Of a process that was killed while it wrote.
        damaged += [partial] if (partial := content[content.rfind(b"\n") + 1 :]) else []
        if pc.unique(table.column("model")).to_pylist() not in ([model_name], []):
            return Compaction()
        digest = hashlib.sha256(content).hexdigest()[:32]
        names = []
        if damaged:
            names.append(f"damaged-{digest}.jsonl")
            store.write(names[-1], b"\n".join(line.rstrip(b"\n") for line in damaged) + b"\n")
        if table.num_rows:
            names.append(_table_name(table, digest))
            store.write(names[-1], encode_parquet(table))
        if _remove_if_unchanged(file, opened, len(content)):
            is_lost = pc.is_in(table.column("event"), pa.array(["dropped", "pruned"]))
            n_lost = pc.sum(table.column("n").filter(is_lost)).as_py() or 0
            return Compaction(1, table.num_rows, n_lost, len(damaged))
        for name in names:
            store.remove(name)
    return Compaction()


def _table_name(table: pa.Table, digest: str) -> str:
    span = pc.min_max(table.column("time")).as_py()
    start, end = (span[key].strftime(_TIME) for key in ("min", "max"))
    return f"predictions-{start}-{end}-{digest}.parquet"


def _overlaps(name: re.Match[str], selection: Selection) -> bool:
    # The names have whole seconds.
    first, last = (
        datetime.strptime(text, _TIME).replace(tzinfo=UTC).timestamp() for text in name.groups()
    )
    is_before = selection.end is not None and selection.end.timestamp() <= first
    is_after = selection.start is not None and selection.start.timestamp() >= last + 1.0
    return not (is_before or is_after)


def _remove_if_unchanged(file: Path, opened: IO[bytes], size: int) -> bool:
    """Remove a log file unless lines were added; its process begins it anew if it still writes.

    Where it is gone, another process compacted it, or it was pruned and what is stored counts.
    """
    # Who writes holds a shared lock.
    fcntl.flock(opened, fcntl.LOCK_EX)
    status = os.fstat(opened.fileno())
    if status.st_nlink and status.st_size != size:
        return False
    if status.st_nlink:
        file.unlink()
    return True
