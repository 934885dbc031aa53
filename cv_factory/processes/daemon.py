"""A process that outlives the one that started it, and is stopped with all its descendants.

It and its descendants are found by a tag in their environment: BentoML's workers leave the process
group, and stay behind when their supervisor is killed; process ids are used again, and start times
by the system's clock change with the clock.
"""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cv_factory.artifacts.files import canonical_json, write_atomic
from cv_factory.errors import CVFactoryError
from cv_factory.processes.log_rotation import LOG_VARIABLE
from cv_factory.processes.log_tail import read_log_tail
from cv_factory.processes.polling import poll_until

TAG_VARIABLE = "CV_FACTORY_DAEMON"
_RECORD, _LOG = "process.json", "process.log"
_EXEC_TIMEOUT_S, _KILL_TIMEOUT_S = 5.0, 5.0


class DaemonError(CVFactoryError):
    """A process could not be started or stopped, or did not become ready."""


@dataclass(frozen=True)
class Daemon:
    """A started process, as recorded in its folder.

    Attributes:
        pid: Its process id.
        tag: Value of ``TAG_VARIABLE`` in its environment and in that of all its descendants.
        port: TCP port that it listens on.
    """

    pid: int
    tag: str
    port: int

    @property
    def is_alive(self) -> bool:
        """Whether that very process runs."""
        try:
            return _is_tagged(psutil.Process(self.pid), self.tag)
        except psutil.Error:
            return False

    def stop(self, grace_period_s: float) -> None:
        """Send SIGTERM, wait for the process to exit, and kill what is left of it.

        Where it was killed, its descendants get SIGTERM in its place.

        Args:
            grace_period_s: Seconds from SIGTERM to SIGKILL.

        Raises:
            DaemonError: A descendant survives SIGKILL.
        """
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            # It exits once its workers have finished their requests.
            poll_until(lambda: not self.is_alive, grace_period_s, interval_s=0.02)
        else:
            for orphan in find_by_tag(self.tag):
                with suppress(psutil.NoSuchProcess):
                    orphan.terminate()
            _await_end(self.tag, grace_period_s)
        kill_by_tag(self.tag)


def start(
    command: Sequence[str],
    folder: Path,
    tag: str,
    port: int,
    *,
    cwd: Path,
    environment: Mapping[str, str],
) -> Daemon:
    """Start a process in a session of its own, with its output in ``process.log``.

    ``LOG_VARIABLE`` names that file to the process, so that it can rotate it.

    Args:
        command: Program and arguments.
        folder: An existing folder that no other process uses.
        tag: Unique; see ``Daemon``.
        port: Where it will listen.
        cwd: Where it runs.
        environment: Its whole environment.
    """
    with (folder / _LOG).open("ab") as log:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**environment, TAG_VARIABLE: tag, LOG_VARIABLE: str(folder / _LOG)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    record = {"pid": process.pid, "mark": tag, "port": port}
    write_atomic(folder / _RECORD, canonical_json(record).encode())
    return Daemon(process.pid, tag, port)


def load_process(folder: Path) -> Daemon | None:
    """Return the process that was last started in a folder; None if none was."""
    try:
        record = json.loads((folder / _RECORD).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Daemon(record["pid"], record["mark"], record["port"])


def load_running(folder: Path) -> Daemon | None:
    """Return the process that was started in a folder; None if it does not run."""
    process = load_process(folder)
    return process if process is not None and process.is_alive else None


def find_by_tag(tag: str) -> list[psutil.Process]:
    """Return all running processes that carry a tag."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _is_tagged(process, tag):
                processes.append(process)
    return processes


def read_environment(process: psutil.Process) -> dict[str, str]:
    """Return the environment of a process; while it executes a program, wait for that one's.

    Until then the system shows neither environment nor arguments, for up to a second on a busy
    machine: after the start, and again where the program is a wrapper, such as pyenv's of Python.

    Raises:
        psutil.Error: It ended, or belongs to another user.
    """
    environment: dict[str, str] = {}

    def is_shown() -> bool:
        environment.update(process.environ())
        # Threads of the kernel have none of it.
        return bool(environment or process.cmdline() or not process.exe())

    poll_until(is_shown, _EXEC_TIMEOUT_S, interval_s=0.001)
    # It may have been shown between the two.
    return environment or dict(process.environ())


def _await_end(tag: str, timeout_s: float) -> bool:
    # Not with psutil, for which an orphan lives until the system has collected it.
    return poll_until(lambda: not find_by_tag(tag), timeout_s)


def _is_tagged(process: psutil.Process, tag: str) -> bool:
    has_tag = read_environment(process).get(TAG_VARIABLE) == tag
    return has_tag and process.status() != psutil.STATUS_ZOMBIE


def kill_by_tag(tag: str) -> None:
    """Kill all processes that carry a tag.

    Raises:
        DaemonError: One of them survives.
    """
    for process in find_by_tag(tag):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if not _await_end(tag, _KILL_TIMEOUT_S):
        pids = ", ".join(str(process.pid) for process in find_by_tag(tag))
        raise DaemonError(
            f"The processes {pids} survive SIGKILL: wait until the system has ended them (ps shows "
            "their state), and run the command again."
        )


def log_file(folder: Path) -> Path:
    """Return where the output of the process started in a folder goes."""
    return folder / _LOG


def log_tail(folder: Path, n_lines: int = 20) -> str:
    """Return the last lines of a process's output, indented, to be shown with an error."""
    return "\n".join(f"  {line}" for line in read_log_tail(folder / _LOG, n_lines).splitlines())
