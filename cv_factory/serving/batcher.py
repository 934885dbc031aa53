"""A bounded micro-batcher: what waits while the graph runs, runs together next, and only that.

It knows nothing of images or HTTP: items go in, one result an item comes out.
"""

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class QueueFullError(Exception):
    """As much waits as may wait; the caller is told to come back later."""


class MicroBatcher(Generic[T, R]):
    """Runs a function on up to ``max_batch`` items at a time, first come first served.

    A thread that is done takes what waits at once; the event loop need not find the time first.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        *,
        max_batch: int,
        queue_size: int,
        threads: int = 1,
    ) -> None:
        """Start nothing yet: the threads come with the items.

        Args:
            run: Answers a batch, an answer an item; called in threads of its own.
            max_batch: Most items in one call.
            queue_size: Most items that wait beside those that run.
            threads: Most calls at a time.
        """
        self._run = run
        self._max_batch = max_batch
        self._queue_size = queue_size
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="graph")
        self._free = threads
        self._lock = threading.Lock()

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
        futures: list[asyncio.Future[R]] = [loop.create_future() for _ in items]
        with self._lock:
            self._waiting.extend(zip(items, futures, strict=True))
            free = self._free
        if free:
            # Not at once: what the loop has received together shall run together.
            loop.call_soon(self._share)
        if len(futures) == 1:
            return [await futures[0]]
        return list(await asyncio.gather(*futures))

    def close(self) -> None:
        """Let the threads end."""
        with self._lock:
            self._waiting.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _share(self) -> None:
        """Share what waits out to the threads that are free."""
        batches = []
        with self._lock:
            while self._free and self._waiting:
                batch = self._take(math.ceil(len(self._waiting) / self._free))
                if batch:
                    self._free -= 1
                    batches.append(batch)
        for batch in batches:
            self._start(batch)

    def _take(self, n: int) -> list[tuple[T, "asyncio.Future[R]"]]:
        """Take up to ``n`` items off the queue; those whose caller is gone are left out."""
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < min(n, self._max_batch):
            entry = self._waiting.popleft()
            if not entry[1].done():
                batch.append(entry)
        return batch

    def _start(self, batch: list[tuple[T, "asyncio.Future[R]"]]) -> None:
        futures = [future for _, future in batch]
        running = self._threads.submit(self._run, [item for item, _ in batch])
        running.add_done_callback(partial(self._finish, futures))

    def _finish(self, futures: list["asyncio.Future[R]"], finished: "Future[Sequence[R]]") -> None:
        """Take the next batch, then answer this one; called in the thread that ran it."""
        if finished.cancelled():
            return
        with self._lock:
            batch = self._take(self._max_batch)
            if not batch:
                self._free += 1
        if batch:
            self._start(batch)
        loop = futures[0].get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_answer, futures, finished)


def _answer(futures: list["asyncio.Future[R]"], finished: "Future[Sequence[R]]") -> None:
    error = finished.exception()
    for position, future in enumerate(futures):
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(finished.result()[position])
