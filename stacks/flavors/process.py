"""A command in a process group of its own: started, awaited, and ended with all its children.

Knows nothing of ZenML. POSIX only.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

#: Tells a started process the id of the process that started it.
PARENT_VARIABLE = "CV_FACTORY_PARENT_PID"


class GroupProcess:
    """A running command whose standard output and error are those of this process."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
        """Start the command.

        Args:
            command: Program and arguments.
            environment: The whole environment of the command; ``PARENT_VARIABLE`` is added to it.
            cwd: Where it runs.
        """
        # A session of its own: Ctrl-C reaches this process alone, which then ends the group.
        self._process = subprocess.Popen(
            list(command),
            env={**environment, PARENT_VARIABLE: str(os.getpid())},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Block until the command ends and return its exit code, negative for a signal."""
        return self._process.wait()

    def stop(self, grace_period: float) -> None:
        """Ask the whole group to end, then make it.

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

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(self._process.pid, number)


def describe_exit(code: int) -> str:
    """Say in words how a process ended, such as ``was killed by SIGKILL (...)``."""
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
