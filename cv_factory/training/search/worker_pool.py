"""Worker pool of a search: processes, and one queue with the messages of all."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cv_factory.cpu import available_cpus
from cv_factory.errors import TrainingError

#: Modules that are started with ``-m``.
ENTRY_POINTS: tuple[str, ...] = ("cv_factory.training.search.trial_worker",)

_ROOT = Path(__file__).resolve().parents[3]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LOG_TAIL_CHARS = 2000


class Worker:
    """Process that runs one trial at a time."""

    def __init__(self, directory: Path, metric: str, threads: int, log: Path) -> None:
        """Start the process with its standard error in ``log``."""
        self._log = log
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", ENTRY_POINTS[0], str(directory), metric],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def send(self, content: dict[str, Any]) -> None:
        """Send a trial, or the answer to a report.

        Raises:
            TrainingError: The process has ended.
        """
        assert self.process.stdin is not None, "opened as a pipe"
        try:
            self.process.stdin.write(json.dumps(content) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.exit_error() from None

    def exit_error(self) -> TrainingError:
        """Build the error for a worker that exited, with the end of its log."""
        code = self.process.wait()
        tail = self._log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL_CHARS:].strip()
        cause = "killed: out of memory?" if code == -9 else f"exit code {code}"
        return TrainingError(f"A worker of the search exited ({cause}). Its last output:\n{tail}")


#: A worker and its message; None after it exited.
Message = tuple[Worker, dict[str, Any] | None]


@contextmanager
def worker_pool(
    directory: Path, metric: str, size: int
) -> Iterator[tuple[list[Worker], "queue.Queue[Message]"]]:
    """Start workers that share the CPUs; kill them at the end of the block."""
    threads = max(1, available_cpus() // size)
    messages: queue.Queue[Message] = queue.Queue()
    workers: list[Worker] = []
    try:
        for number in range(size):
            worker = Worker(directory, metric, threads, directory / f"worker-{number}.log")
            workers.append(worker)
            threading.Thread(target=_forward_messages, args=(worker, messages), daemon=True).start()
        yield workers, messages
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()


def _forward_messages(worker: Worker, messages: "queue.Queue[Message]") -> None:
    assert worker.process.stdout is not None, "opened as a pipe"
    for line in worker.process.stdout:
        messages.put((worker, json.loads(line)))
    messages.put((worker, None))
