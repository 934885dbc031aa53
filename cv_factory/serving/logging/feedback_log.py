"""Feedback log: labels as JSON lines in the folder of the prediction log.

A file is ``feedback-<start>-<process>.jsonl``. Unlike predictions, labels are on the disk before
their request is answered, and no file is ever removed.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from cv_factory.serving.json_encoder import encode_json
from cv_factory.serving.logging.prediction_log import write_all

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
            with self._present_file().open("ab", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                write_all(file, content)
                os.fsync(file.fileno())

    def _present_file(self) -> Path:
        if self._file is None or _size(self._file) >= self._max_file_bytes:
            start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            self._file = self._folder / f"feedback-{start}-{os.getpid()}.jsonl"
        return self._file


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.stat().st_size
    return 0


def feedback_files(folder: Path) -> list[Path]:
    """Return the files of a folder, the oldest first."""
    return sorted(folder.glob(_FILES))


def read_feedback(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file; an incomplete last line is skipped."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)
