"""A process that outlives the one that started it, and is stopped with everything it started.

What it started is found by a mark in the environment, since BentoML's workers leave the process
group, and stay behind when their supervisor is killed.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from cv_factory.artifacts.files import canonical_json, write_atomic
from cv_factory.errors import CVFactoryError
from cv_factory.processes.log_rotation import LOG_VARIABLE, list_rotated_files

MARK_VARIABLE = "CV_FACTORY_DAEMON"
_RECORD, _LOG = "process.json", "process.log"
_LAST_LINES = 20


class DaemonError(CVFactoryError):
    """A process could not be started or stopped, or did not become ready."""


@dataclass(frozen=True)
class Daemon:
    """A started process, as recorded in its folder.

    Attributes:
        pid: Its process id.
        created: When the system says it began, seconds since the epoch: ids are used again.
        mark: Value of ``MARK_VARIABLE`` in its environment and in that of all it started.
        port: Where it listens.
    """

    pid: int
    created: float
    mark: str
    port: int

    @property
    def is_alive(self) -> bool:
        """Whether that very process runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1.0
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def stop(self, grace_seconds: float) -> None:
        """Ask the process to end, and make it and all that it started.

        Args:
            grace_seconds: From SIGTERM to SIGKILL.

        Raises:
            DaemonError: Something of it cannot be ended.
        """
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        # Its workers finish what they are at: it waits for them, and so do we.
        while self.is_alive and time.monotonic() < deadline:
            time.sleep(0.02)
        left = marked(self.mark)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(left, timeout=5)
        if alive:
            raise DaemonError(f"Processes {[p.pid for p in alive]} cannot be ended.")


def start(
    command: Sequence[str],
    folder: Path,
    mark: str,
    port: int,
    *,
    cwd: Path,
    environment: Mapping[str, str],
) -> Daemon:
    """Start a process in a session of its own; what it prints goes to ``process.log``.

    The process is told the file, so that it can keep it within bounds.

    Args:
        command: Program and arguments.
        folder: An existing folder of its own.
        mark: Unique; see ``Daemon``.
        port: Where it will listen.
        cwd: Where it runs.
        environment: Its whole environment.
    """
    with (folder / _LOG).open("ab") as log:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**environment, MARK_VARIABLE: mark, LOG_VARIABLE: str(folder / _LOG)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    daemon = Daemon(process.pid, psutil.Process(process.pid).create_time(), mark, port)
    write_atomic(folder / _RECORD, canonical_json(asdict(daemon)).encode())
    return daemon


def recorded(folder: Path) -> Daemon | None:
    """Return the process that was last started in a folder; None if none was."""
    try:
        return Daemon(**json.loads((folder / _RECORD).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None


def marked(mark: str) -> list[psutil.Process]:
    """Return all processes that carry a mark and run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_one = process.environ().get(MARK_VARIABLE) == mark
            if is_one and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def log_file(folder: Path) -> Path:
    """Return where a process's output goes."""
    return folder / _LOG


def last_words(folder: Path) -> str:
    """Return the last lines of a process's output, to be shown with an error."""
    present = log_file(folder)
    lines: list[str] = []
    # A new file may have begun just before the last words.
    for file in (present, *list_rotated_files(present)[-1:]):
        if len(lines) < _LAST_LINES:
            with suppress(FileNotFoundError):
                text = file.read_text(encoding="utf-8", errors="replace")
                lines = text.splitlines() + lines
    return "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])
