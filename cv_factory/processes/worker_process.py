"""A Python module run in a child process that never outlives this one; its output is a log file."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from cv_factory.processes.log_tail import read_log_tail


class WorkerProcess:
    """A running ``python -m MODULE``.

    It must call ``exit_with_parent``, or read its standard input and exit at the end of it: the
    input ends when this process does, however that ends.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        log: Path,
        variables: Mapping[str, str],
        pipe_stdout: bool = False,
    ) -> None:
        """Start the module with this process's interpreter and import path.

        Args:
            module: Name of the module to run.
            arguments: Its command line.
            log: File that standard error, and standard output unless piped, are written to.
            variables: Added to the environment of this process.
            pipe_stdout: Whether ``stdout`` is read here, as text.
        """
        self.log = log
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **variables,
        }
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if pipe_stdout else output,
                stderr=output,
                text=True,
            )

    @property
    def stdin(self) -> IO[str]:
        """The worker's standard input."""
        assert self._process.stdin is not None, "opened as a pipe"
        return self._process.stdin

    @property
    def stdout(self) -> IO[str]:
        """The worker's standard output, where it is piped."""
        assert self._process.stdout is not None, "not opened as a pipe"
        return self._process.stdout

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Block until it ends and return its exit code, negative for a signal."""
        return self._process.wait()

    def kill(self) -> None:
        """End it at once, if it still runs."""
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):  # what was written and never read
            self.stdin.close()

    def log_tail(self, n_lines: int = 30) -> str:
        """Return the last lines of its log."""
        return read_log_tail(self.log, n_lines)


def exit_with_parent() -> None:
    """End this process, at once, when the ``WorkerProcess`` that started it is gone.

    Starts a thread that reads standard input to its end.
    """

    def watch() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock would stop a normal exit
            pass
        os._exit(1)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()
