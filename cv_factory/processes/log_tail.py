"""Reads logs that are kept in several files, also while they are written and a new file begins."""

import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TextIO

from cv_factory.processes.log_rotation import ROTATION_INTERVAL_S, list_rotated_files

#: For so long a file is read after a new one began: by then every process writes to the new one.
_GRACE_PERIOD_S = 2 * ROTATION_INTERVAL_S


def read_log_tail(path: Path, n_lines: int) -> str:
    """Return the last lines of a log, which may have just been rotated; empty if there is none."""
    lines: list[str] = []
    for file in (path, *list_rotated_files(path)[-1:]):
        if len(lines) < n_lines:
            with suppress(FileNotFoundError):
                text = file.read_text(encoding="utf-8", errors="replace")
                lines = text.rstrip().splitlines() + lines
    return "\n".join(lines[-n_lines:])


class LogReader(AbstractContextManager["LogReader"]):
    """Yields each line of a log once; the log need not exist yet."""

    def __init__(self, path: Path) -> None:
        """Open the files that exist.

        Args:
            path: The present file.
        """
        self._path = path
        # The open files, the oldest first, and until when each is read; the last is the present.
        self._files: dict[TextIO, float] = {}
        self._open_new_files()

    def __exit__(self, *exc_info: object) -> None:
        """Close, whatever happened in the block."""
        self.close()

    def lines(self) -> Iterator[str]:
        """Yield the lines that were written since the last call."""
        has_new_files = True
        while has_new_files:
            now = time.monotonic()
            for file, until in list(self._files.items()):
                while line := file.readline():
                    yield line.rstrip("\n")
                if until < now:
                    file.close()
                    del self._files[file]
            # What was written to the old file before the new one began is read first.
            has_new_files = self._open_new_files()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        self._files.clear()

    def _open_new_files(self) -> bool:
        """Open the files that began since the last call; return whether any did."""
        new: list[TextIO] = []
        # From the present one back, so that a file that is renamed meanwhile is not passed over.
        for path in (self._path, *reversed(list_rotated_files(self._path))):
            file = _open(path)
            if file is None:
                continue
            if _is_among(file, self._files):
                file.close()
                break
            if _is_among(file, new):
                file.close()
            else:
                new.insert(0, file)
        if new:
            deadline = time.monotonic() + _GRACE_PERIOD_S
            self._files = {file: min(until, deadline) for file, until in self._files.items()}
            self._files |= dict.fromkeys(new, deadline) | {new[-1]: math.inf}
        return bool(new)


def _open(path: Path) -> TextIO | None:
    try:
        return path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _is_among(file: TextIO, others: Iterable[TextIO]) -> bool:
    return any(os.path.sameopenfile(file.fileno(), other.fileno()) for other in others)
