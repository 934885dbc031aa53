"""Keeps the file that a process's standard output and error go to within bounds.

Several processes write to the same file. One of them renames it when it is full; the others notice
and go on in the new one. Until then they write to the renamed one: no line is lost or cut.
"""

import fcntl
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

#: Names the log file in the environment of a process whose output goes there.
LOG_VARIABLE = "CV_FACTORY_LOG_FILE"
#: For so long a process may write to a file that another one has renamed.
ROTATION_INTERVAL_S = 0.2


def list_rotated_files(path: Path) -> list[Path]:
    """Return the full files of a log beside its present one, the oldest first."""
    older = [p for p in path.parent.glob(f"{path.name}.*") if p.suffix[1:].isdigit()]
    return sorted(older, key=lambda p: -int(p.suffix[1:]))


def rotate_output(max_bytes: int, max_files: int) -> None:
    """Rotate this process's output from now on, where ``LOG_VARIABLE`` names its file."""
    name = os.environ.get(LOG_VARIABLE)
    if name:
        RotatedOutput(Path(name), max_bytes, max_files).start_rotation()


@dataclass(frozen=True)
class RotatedOutput:
    """The file of this process's output; full ones get ``.1`` (the latest), ``.2`` and so on.

    Attributes:
        path: Where it lies.
        max_bytes: Beyond which a new one begins.
        max_files: How many are kept, the present one included; 2 or more.
    """

    path: Path
    max_bytes: int
    max_files: int

    def rotate_if_needed(self) -> None:
        """Begin a new file if this one is full; go on in the one that another process began."""
        # On a full disk the next attempt may find room, and the present file is still written to.
        with suppress(OSError):
            if not self._is_present():
                self._reopen()
            elif os.fstat(2).st_size >= self.max_bytes:
                self._begin_new()

    def start_rotation(self) -> None:
        """Rotate now and, in a thread, every ``ROTATION_INTERVAL_S`` seconds."""

        def rotate() -> None:
            never = threading.Event()
            while not never.wait(ROTATION_INTERVAL_S):
                self.rotate_if_needed()

        # A process that another one forks may begin in a file that was full long ago.
        self.rotate_if_needed()
        threading.Thread(target=rotate, name="log-rotation", daemon=True).start()

    def _is_present(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(2))
        except FileNotFoundError:
            return False

    def _begin_new(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            # Another process may have rotated while this one waited for the lock.
            if self._is_present():
                _shift_files(self.path, self.max_files)
            self._reopen()
        finally:
            os.close(folder)

    def _reopen(self) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for standard in (1, 2):
            os.dup2(file, standard)
        os.close(file)


def rotate_file(path: Path, max_bytes: int, max_files: int) -> bool:
    """Rename the file of another process if it is full; return whether that must open a new one."""
    with suppress(OSError):  # there is none, or the disk is full
        if path.stat().st_size >= max_bytes:
            _shift_files(path, max_files)
            return True
    return False


def _shift_files(path: Path, max_files: int) -> None:
    """Rename a full file and the older ones: the latest is ``.1``, and the oldest is replaced."""
    numbered = [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, max_files))]
    for source, target in reversed(list(pairwise(numbered))):
        if source.exists():
            source.replace(target)
