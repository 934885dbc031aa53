"""A command in a process group of its own: started, awaited, limited, ended with its children.

POSIX only.
"""

import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from cv_factory.processes.polling import poll_until

#: Environment variable of a started process: the id of the process that started it.
PARENT_VARIABLE = "CV_FACTORY_PARENT_PID"

_POLL_INTERVAL_S = 0.2
_TERMINATION_TIMEOUT_S = 5.0


class Job(Protocol):
    """A started computation that ends with an exit code, on this machine or on others."""

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""

    def wait(self) -> int:
        """Block until it ends and return its exit code, negative for a signal."""

    def stop(self, grace_period: float) -> None:
        """Send SIGTERM, and SIGKILL after ``grace_period`` seconds."""

    def describe(self, code: int) -> str:
        """Describe how it ended, such as ``was killed by SIGKILL (...)``."""


@dataclass(frozen=True)
class Limits:
    """Resource limits of a command: bytes of private memory and seconds; None for no limit."""

    memory: float | None = None
    seconds: float | None = None


class GroupProcess:
    """A running command whose standard output and error are those of this process: a ``Job``."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        limits: Limits = Limits(),
    ) -> None:
        """Start the command.

        Args:
            command: Program and arguments.
            environment: The whole environment of the command; ``PARENT_VARIABLE`` is added to it.
            cwd: Where it runs.
            limits: It is killed when it exceeds them.
        """
        self._limits = limits
        self._started = time.monotonic()
        self._exceeded = ""
        # A session of its own: Ctrl-C reaches this process alone, which then ends the group.
        self._process = subprocess.Popen(
            list(command),
            env={**environment, PARENT_VARIABLE: str(os.getpid())},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs within its limits."""
        code = self._process.poll()
        if code is None and (exceeded := self._excess()):
            self._exceeded = exceeded
            self.stop(0)
            code = self._process.poll()
        return code

    def wait(self) -> int:
        """Block until the command ends and return its exit code, negative for a signal."""
        if self._limits == Limits():
            return self._process.wait()
        while (code := self.poll()) is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_POLL_INTERVAL_S)
        return code

    def stop(self, grace_period: float) -> None:
        """Terminate the whole group, then kill it.

        Args:
            grace_period: Seconds from SIGTERM to SIGKILL.
        """
        try:
            if self._process.poll() is None:
                self._signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(grace_period)
        finally:  # also after a second Ctrl-C, and for what the command itself left behind
            self._signal(signal.SIGKILL)
            self._process.wait()

    def describe(self, code: int) -> str:
        """Describe how it ended."""
        return self._exceeded or describe_exit(code)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(self._process.pid, number)

    def _excess(self) -> str:
        """Describe the limit that is exceeded; empty for none."""
        memory, seconds = self._limits.memory, self._limits.seconds
        if seconds is not None and time.monotonic() - self._started > seconds:
            return f"was killed after its time limit of {seconds:g} s (setting 'timeout')"
        if memory is not None and (used := self._private_memory()) > memory:
            return (
                f"was killed, since it took {used / 1e6:,.0f} MB of memory and had asked for "
                f"{memory / 1e6:,.0f} MB (its resource 'memory')"
            )
        return ""

    def _private_memory(self) -> int:
        """Return the bytes that the group does not share; pages of mapped files are shared."""
        total = 0
        with suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self._process.pid)
            for process in [leader, *leader.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    usage = process.memory_info()
                    total += usage.rss - getattr(usage, "shared", 0)
        return total


def describe_exit(code: int) -> str:
    """Describe how a process ended, such as ``was killed by SIGKILL (...)``."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code == signal.SIGKILL:
        return (
            "was killed by SIGKILL: most often the kernel's out-of-memory killer "
            "(`dmesg | tail` names its victims); use a smaller batch or a machine with more memory"
        )
    if -code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE):
        return f"crashed with {name} inside native code"
    return f"was ended by {name}"


def terminate_group_with_parent(parent_pid: int) -> None:
    """Watch the parent from a thread, and terminate this process group once the parent is gone.

    A parent that is killed with SIGKILL cannot end its children, and only Linux could be asked to.

    Args:
        parent_pid: Value of ``PARENT_VARIABLE``.
    """

    def watch() -> None:
        poll_until(lambda: os.getppid() != parent_pid, math.inf, interval_s=0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_TERMINATION_TIMEOUT_S)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="terminate-with-parent", daemon=True).start()
