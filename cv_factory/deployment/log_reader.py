"""Reads a log that is kept in several files, also while it is written and a new file begins."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from cv_factory.closing import Closing
from cv_factory.serving.log_files import kept_files


class LogReader(Closing):
    """Hands out each line of a log once; there need not be a log yet."""

    def __init__(self, path: Path) -> None:
        """Open what is there.

        Args:
            path: Of the present file.
        """
        self._path = path
        self._files = ExitStack()
        older = kept_files(path)
        self._left = [file for file in map(self._open, (*older, path)) if file is not None]

    def lines(self) -> Iterator[str]:
        """Yield the lines that were written since the last call."""
        while self._left:
            while line := self._left[0].readline():
                yield line.rstrip("\n")
            if len(self._left) > 1:
                del self._left[0]
            elif (begun := self._begun()) is not None:
                # What was written to the old file before the new one began is read first.
                self._left.append(begun)
            else:
                return

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _begun(self) -> TextIO | None:
        """Return the present file if it is another one than the last that was opened."""
        try:
            same = os.path.samestat(self._path.stat(), os.fstat(self._left[-1].fileno()))
        except FileNotFoundError:
            return None
        return None if same else self._open(self._path)

    def _open(self, path: Path) -> TextIO | None:
        try:
            return self._files.enter_context(path.open(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return None
