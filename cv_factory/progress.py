"""Progress that a person can watch: a rich bar on a terminal, a few plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while showing how many are done.

    Args:
        items: What is iterated.
        description: What is being done, such as ``Reading images``.
        total: Number of items, where it is known.
    """
    if sys.stderr.isatty():
        yield from _bar(items, description, total)
    else:
        yield from _lines(items, description, total)


def _bar(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    with _progress() as progress:
        yield from progress.track(items, total=total, description=description)


def _progress() -> "Progress":
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


def _lines(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    begun = last = time.monotonic()
    count = 0
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            say(f"{description}: {count}{f' of {total}' if total else ''}")
    say(f"{description}: {count} in {time.monotonic() - begun:.1f} s")


def say(message: str) -> None:
    """Print one line of progress to standard error."""
    sys.stderr.write(f"  {message}\n")
    sys.stderr.flush()


class EpochProgress:
    """Shows one line an epoch and, on a terminal, a bar for the steps of the one under way."""

    def __init__(self, epochs: int) -> None:
        """Remember how many epochs there will be."""
        self._epochs = epochs
        self._epoch = 1
        self._bar: Progress | None = None

    def __enter__(self) -> "EpochProgress":
        """Show the bar, where a person watches."""
        if sys.stderr.isatty():
            self._bar = _progress()
            self._bar.add_task("Epoch 1", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, done: int, steps: int) -> None:
        """Move the bar to ``done`` of the ``steps`` of this epoch."""
        if self._bar is not None:
            description = f"Epoch {self._epoch}"
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=done, total=steps, description=description)

    def show(self, epoch: int, metrics: dict[str, float]) -> None:
        """Print the metrics of an epoch."""
        self._epoch = epoch + 1
        line = (
            f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}  "
            f"loss {metrics['train_loss']:.4f}  "
            f"validation loss {metrics['validation_loss']:.4f}  "
            f"accuracy {metrics['validation_accuracy']:.2%}  "
            f"{metrics['seconds']:.1f} s"
        )
        if self._bar is None:
            say(line)
        else:  # above the bar
            self._bar.console.print(f"  {line}", markup=False, highlight=False)
