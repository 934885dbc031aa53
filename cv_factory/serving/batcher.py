"""A bounded micro-batcher: what waits while the graph runs, runs together next, and only that.

It knows nothing of images or HTTP: items go in, one result an item comes out.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class QueueFullError(Exception):
    """As much waits as may wait; the caller is told to come back later."""


class MicroBatcher(Generic[T, R]):
    """Runs a function on up to ``max_batch`` items at a time, in one thread, in order."""

    def __init__(
        self, run: Callable[[Sequence[T]], Sequence[R]], *, max_batch: int, queue_size: int
    ) -> None:
        """Start nothing yet: the thread comes with the first item.

        Args:
            run: Answers a batch, an answer an item; called in a thread of its own.
            max_batch: Most items in one call.
            queue_size: Most items that wait beside those that run.
        """
        self._run = run
        self._max_batch = max_batch
        self._queue_size = queue_size
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graph")
        self._busy = False

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    def has_room(self, n: int = 1) -> bool:
        """Whether ``n`` more items may wait."""
        return len(self._waiting) + n <= self._queue_size

    async def __call__(self, items: Sequence[T]) -> list[R]:
        """Return the results of some items, which may run in different batches.

        Raises:
            QueueFullError: They do not all fit into the queue; none is taken.
        """
        if not self.has_room(len(items)):
            raise QueueFullError
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        if not self._busy:
            self._start(loop)
        if len(futures) == 1:
            return [await futures[0]]
        return list(await asyncio.gather(*futures))

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand the next batch to the thread; items whose caller is gone are left out."""
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        self._busy = bool(batch)
        if batch:
            futures = [future for _, future in batch]
            done = loop.run_in_executor(self._thread, self._run, [item for item, _ in batch])
            done.add_done_callback(lambda finished: self._finish(loop, futures, finished))

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        futures: list["asyncio.Future[R]"],
        finished: "asyncio.Future[Sequence[R]]",
    ) -> None:
        self._start(loop)
        error = finished.exception()
        for position, future in enumerate(futures):
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(finished.result()[position])
