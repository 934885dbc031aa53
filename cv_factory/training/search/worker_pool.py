"""Worker pool of a search: processes, and one queue with the messages of all."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cv_factory.cpu import available_cpus
from cv_factory.errors import TrainingError
from cv_factory.processes.group import describe_exit
from cv_factory.processes.worker_process import WorkerProcess

#: Modules that are started with ``-m``.
ENTRY_POINTS: tuple[str, ...] = ("cv_factory.training.search.trial_worker",)

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Worker(WorkerProcess):
    """Process that runs one trial at a time; messages are lines of JSON on stdin and stdout."""

    def __init__(self, directory: Path, metric: str, threads: int, log: Path) -> None:
        """Start the process with its standard error in ``log``."""
        variables = dict.fromkeys(_THREAD_VARIABLES, str(threads))
        super().__init__(
            ENTRY_POINTS[0], str(directory), metric, log=log, variables=variables, pipe_stdout=True
        )

    def send(self, content: dict[str, Any]) -> None:
        """Send a trial, or the answer to a report.

        Raises:
            TrainingError: The process has ended.
        """
        try:
            self.stdin.write(json.dumps(content) + "\n")
            self.stdin.flush()
        except BrokenPipeError:
            raise self.exit_error() from None

    def exit_error(self) -> TrainingError:
        """Build the error for a worker that exited, with the end of its log."""
        ending = describe_exit(self.wait())
        return TrainingError(
            f"A worker of the search {ending}. Its last output:\n{self.log_tail()}"
        )


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
            worker.kill()


def _forward_messages(worker: Worker, messages: "queue.Queue[Message]") -> None:
    for line in worker.stdout:
        messages.put((worker, json.loads(line)))
    messages.put((worker, None))
