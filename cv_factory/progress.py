"""Progress that a person can watch: a rich bar on a terminal, a few plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

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
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(items, total=total, description=description)


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
    """Shows one line an epoch: loss, accuracy and time."""

    def __init__(self, epochs: int) -> None:
        """Remember how many epochs there will be."""
        self._epochs = epochs

    def show(self, epoch: int, metrics: dict[str, float]) -> None:
        """Print the metrics of an epoch."""
        say(
            f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}  "
            f"loss {metrics['train_loss']:.4f}  "
            f"validation loss {metrics['validation_loss']:.4f}  "
            f"accuracy {metrics['validation_accuracy']:.2%}  "
            f"{metrics['seconds']:.1f} s"
        )
