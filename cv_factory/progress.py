"""Progress of long loops: a rich bar on a terminal, a log record now and then elsewhere.

Modules only log; an entry point (``cli.main``, a step's or a rank's process) calls
``log_to_stderr`` once.
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

_log = logging.getLogger(__name__)
_LOG_INTERVAL_S = 10.0
_PROJECT_LOGGERS = ("cv_factory", "registry", "stacks")


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Handler of the present ``sys.stderr``, which ZenML and tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_stderr() -> None:
    """Print this project's records to standard error, from level INFO; repeating is harmless."""
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("  %(message)s"))
    for name in _PROJECT_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.handlers = [handler]


@contextmanager
def quiet_loggers(level: int, *names: str | None) -> Iterator[None]:
    """Log only messages of ``level`` and above from some libraries; None is the root logger."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, previous in zip(loggers, levels, strict=True):
            logger.setLevel(previous)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while showing how many are done.

    Args:
        items: Iterable of any length.
        description: Label, such as ``Reading images``.
        total: Number of items, if it is known.
    """
    if sys.stderr.isatty():
        yield from _show_bar(items, description, total)
    else:
        yield from _log_counts(items, description, total)


def _show_bar(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    with _create_bar() as progress:
        yield from progress.track(items, total=total, description=description)


def _create_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def _log_counts(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    start = last_log = time.monotonic()
    count = 0
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - last_log >= _LOG_INTERVAL_S:
            last_log = now
            _log.info("%s: %d%s", description, count, f" of {total}" if total else "")
    _log.info("%s: %d in %.1f s", description, count, time.monotonic() - start)


class EpochProgress:
    """Progress of a training: one line per epoch and, on a terminal, a bar of the epoch's steps."""

    def __init__(self, epochs: int) -> None:
        """Create the progress of a training of so many epochs."""
        self._epochs = epochs
        self._epoch = 1
        self._bar: Progress | None = None

    def __enter__(self) -> "EpochProgress":
        """Show the bar if standard error is a terminal."""
        if sys.stderr.isatty():
            self._bar = _create_bar()
            self._bar.add_task("Epoch 1", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def update_steps(self, completed: int, total: int) -> None:
        """Move the bar to ``completed`` of the ``total`` steps of this epoch."""
        if self._bar is not None:
            description = f"Epoch {self._epoch}"
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=completed, total=total, description=description)

    def finish_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Show the metrics of a finished epoch, numbered from 1."""
        self._epoch = epoch + 1
        line = (
            f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}  "
            f"loss {metrics['train_loss']:.4f}  "
            f"validation loss {metrics['validation_loss']:.4f}  "
            f"accuracy {metrics['validation_accuracy']:.2%}  "
            f"{metrics['seconds']:.1f} s"
        )
        if self._bar is None:
            _log.info(line)
        else:
            # Rich prints it above the bar, which stays the last line.
            self._bar.console.print(f"  {line}", markup=False, highlight=False)
