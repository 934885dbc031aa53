"""The worker processes of a search, and the queue on which all of them answer."""

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

_ROOT = Path(__file__).resolve().parents[3]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_TAIL = 2000


class Worker:
    """A process that runs one trial at a time."""

    def __init__(self, directory: Path, metric: str, threads: int, log: Path) -> None:
        """Start it; what it prints goes to ``log``."""
        self._log = log
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.worker", str(directory), metric],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def tell(self, content: dict[str, Any]) -> None:
        """Send a trial or an answer.

        Raises:
            TrainingError: The process has ended.
        """
        assert self.process.stdin is not None, "opened as a pipe"
        try:
            self.process.stdin.write(json.dumps(content) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.failure() from None

    def failure(self) -> TrainingError:
        """Return the error of a worker that ended by itself, with what it said last."""
        code = self.process.wait()
        said = self._log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()
        cause = "killed: out of memory?" if code == -9 else f"exit code {code}"
        return TrainingError(f"A worker of the search ended ({cause}). It said last:\n{said}")


#: A worker and what it said; None when it ended.
Message = tuple[Worker, dict[str, Any] | None]


@contextmanager
def crew(
    directory: Path, metric: str, size: int
) -> Iterator[tuple[list[Worker], "queue.Queue[Message]"]]:
    """Start workers that share the CPUs; at the end of the block none of them runs."""
    threads = max(1, available_cpus() // size)
    messages: queue.Queue[Message] = queue.Queue()
    workers: list[Worker] = []
    try:
        for number in range(size):
            worker = Worker(directory, metric, threads, directory / f"worker-{number}.log")
            workers.append(worker)
            threading.Thread(target=_forward, args=(worker, messages), daemon=True).start()
        yield workers, messages
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()


def _forward(worker: Worker, messages: "queue.Queue[Message]") -> None:
    assert worker.process.stdout is not None, "opened as a pipe"
    for line in worker.process.stdout:
        messages.put((worker, json.loads(line)))
    messages.put((worker, None))
