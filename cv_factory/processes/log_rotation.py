"""Keeps the file that a process's standard output and error go to within bounds.

Several processes write to the same file. One of them renames it when it is full; the others notice
and go on in the new one. Until then they write to the renamed one: no line is lost or cut.
"""

import fcntl
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cv_factory.config.serving import LogConfig

#: Names the file, to whoever is started with its output going there.
LOG_VARIABLE = "CV_FACTORY_LOG_FILE"
#: So long a process may go on in a file that another one has renamed.
SECONDS_BETWEEN_LOOKS = 0.2


def list_rotated_files(path: Path) -> list[Path]:
    """Return what is kept of a log beside its present file, the oldest first."""
    older = [p for p in path.parent.glob(f"{path.name}.*") if p.suffix[1:].isdigit()]
    return sorted(older, key=lambda p: -int(p.suffix[1:]))


def rotate_output(config: LogConfig) -> None:
    """Keep this process's output within bounds from now on, where it goes to a file of its own."""
    file = RotatedOutput.told(config)
    if file is not None:
        file.keep_following()


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

    @classmethod
    def told(cls, config: LogConfig) -> "RotatedOutput | None":
        """Return the file that the environment names; None where the output goes elsewhere."""
        name = os.environ.get(LOG_VARIABLE)
        return cls(Path(name), config.max_file_bytes, config.output_files) if name else None

    def follow(self) -> None:
        """Begin a new file if this one is full; go on in the one that another process began."""
        with suppress(OSError):
            # A full disk: the next look may find room, and the present file is still written to.
            if not self._is_present():
                self._reopen()
            elif os.fstat(2).st_size >= self.max_bytes:
                self._begin_new()

    def keep_following(self) -> None:
        """Look at the file now and, in a thread, from now on."""

        def look() -> None:
            never = threading.Event()
            while not never.wait(SECONDS_BETWEEN_LOOKS):
                self.follow()

        # A process that another one forks may begin in a file that was full long ago.
        self.follow()
        threading.Thread(target=look, name="log-file", daemon=True).start()

    def _is_present(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(2))
        except FileNotFoundError:
            return False

    def _begin_new(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            # Another process may have been here while this one waited.
            if self._is_present():
                for number in range(self.max_files - 1, 0, -1):
                    source = self._numbered(number - 1)
                    if source.exists():
                        source.replace(self._numbered(number))
            self._reopen()
        finally:
            os.close(folder)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path

    def _reopen(self) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for standard in (1, 2):
            os.dup2(file, standard)
        os.close(file)
