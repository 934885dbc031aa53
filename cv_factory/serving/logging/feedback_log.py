"""Feedback log: labels as JSON lines in the folder of the prediction log.

A file is ``feedback-<start>-<process>.jsonl``. Unlike predictions, labels are on the disk before
their request is answered, and no file is ever removed to make room.
"""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from cv_factory.artifacts.files import write_atomic
from cv_factory.serving.json_encoder import encode_json
from cv_factory.serving.logging.prediction_log import write_all

logger = logging.getLogger(__name__)

_FILES = "feedback-*.jsonl"


class FeedbackLog:
    """Appends labels to a file of this process."""

    def __init__(self, folder: Path, max_file_bytes: int) -> None:
        """Write to a folder, which may be shared; a new file begins beyond ``max_file_bytes``."""
        self._folder = folder
        self._max_file_bytes = max_file_bytes
        self._file: Path | None = None
        self._lock = Lock()

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write records to the disk, all or none.

        Raises:
            OSError: They cannot be written.
        """
        content = b"".join(encode_json(record) + b"\n" for record in records)
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            while not _append(self._present_file(), content):
                pass  # replaced while this process waited; see remove_feedback

    def _present_file(self) -> Path:
        if self._file is None or _size(self._file) >= self._max_file_bytes:
            start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            self._file = self._folder / f"feedback-{start}-{os.getpid()}.jsonl"
        return self._file


def _append(path: Path, content: bytes) -> bool:
    """Append to a file; return False, and write nothing, if another one has taken its place."""
    with path.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        if not os.fstat(file.fileno()).st_nlink:
            return False
        write_all(file, content)
        os.fsync(file.fileno())
        return True


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.stat().st_size
    return 0


def feedback_files(folder: Path) -> list[Path]:
    """Return the files of a folder, the oldest first."""
    return sorted(folder.glob(_FILES))


def read_feedback(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file; an incomplete last line is skipped, a damaged one reported."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n"):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    logger.warning("%s, line %d: no label can be read (%s).", file, number, error)


def remove_feedback(folder: Path, is_forgotten: Callable[[Mapping[str, Any]], bool]) -> int:
    """Remove records from the files of a folder, which services may be writing; return how many."""
    return sum(_remove_from_file(path, is_forgotten) for path in feedback_files(folder))


def _remove_from_file(path: Path, is_forgotten: Callable[[Mapping[str, Any]], bool]) -> int:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            lines = file.readlines()
            kept = [line for line in lines if not _is_record(line, is_forgotten)]
            if len(kept) < len(lines):
                write_atomic(path, b"".join(kept))
            return len(lines) - len(kept)
    # Another process replaced it while this one waited.
    return _remove_from_file(path, is_forgotten)


def _is_record(line: bytes, condition: Callable[[Mapping[str, Any]], bool]) -> bool:
    """Whether a line is a record for which the condition holds; a damaged one is none."""
    try:
        return condition(json.loads(line))
    except (ValueError, KeyError, TypeError):
        return False
