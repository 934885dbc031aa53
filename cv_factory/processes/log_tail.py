"""Reads a log that is kept in several files, also while it is written and a new file begins."""

import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from cv_factory.closing import Closing
from cv_factory.processes.log_rotation import SECONDS_BETWEEN_LOOKS, list_rotated_files

#: So long a file is read after a new one began: by then every process writes to the new one.
_SECONDS_OF_GRACE = 2 * SECONDS_BETWEEN_LOOKS


class LogReader(Closing):
    """Hands out each line of a log once; there need not be a log yet."""

    def __init__(self, path: Path) -> None:
        """Open what is there.

        Args:
            path: Of the present file.
        """
        self._path = path
        # What is open, the oldest first, and until when; the last one is the present file.
        self._files: dict[TextIO, float] = {}
        self._open_begun()

    def lines(self) -> Iterator[str]:
        """Yield the lines that were written since the last call."""
        has_begun = True
        while has_begun:
            now = time.monotonic()
            for file, until in list(self._files.items()):
                while line := file.readline():
                    yield line.rstrip("\n")
                if until < now:
                    file.close()
                    del self._files[file]
            # What was written to the old file before the new one began is read first.
            has_begun = self._open_begun()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        self._files.clear()

    def _open_begun(self) -> bool:
        """Open the files that began since the last time; return whether any did."""
        begun: list[TextIO] = []
        # From the present one back, so that a file that is renamed meanwhile is not passed over.
        for path in (self._path, *reversed(list_rotated_files(self._path))):
            file = _open(path)
            if file is None:
                continue
            if _is_among(file, self._files):
                file.close()
                break
            if _is_among(file, begun):
                file.close()
            else:
                begun.insert(0, file)
        if begun:
            grace = time.monotonic() + _SECONDS_OF_GRACE
            self._files = {file: min(until, grace) for file, until in self._files.items()}
            self._files |= dict.fromkeys(begun, grace) | {begun[-1]: math.inf}
        return bool(begun)


def _open(path: Path) -> TextIO | None:
    try:
        return path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _is_among(file: TextIO, others: Iterable[TextIO]) -> bool:
    return any(os.path.sameopenfile(file.fileno(), other.fileno()) for other in others)
