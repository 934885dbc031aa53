"""Bounded micro-batcher: items that wait while a batch runs form the next batch.

It never delays a batch to fill it, and knows neither images nor HTTP.
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
    """The queue cannot take the items; retry later."""


class MicroBatcher(Generic[T, R]):
    """Runs a function on batches of up to ``max_batch`` items, first in, first out.

    A thread that finishes a batch takes the next one itself, without waiting for the event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        *,
        max_batch: int,
        queue_size: int,
        threads: int = 1,
    ) -> None:
        """Prepare the queue; threads start with the first items.

        Args:
            run: Computes one result an item of a batch; called in the batcher's threads.
            max_batch: Maximum number of items in one call.
            queue_size: Maximum number of waiting items, besides those that run.
            threads: Maximum number of concurrent calls.
        """
        self._run = run
        self._max_batch = max_batch
        self._queue_size = queue_size
        self._queue: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="graph")
        self._idle_threads = threads
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of waiting items."""
        return len(self._queue)

    async def __call__(self, items: Sequence[T]) -> list[R]:
        """Return the results of some items, which may run in different batches.

        Raises:
            QueueFullError: The items do not all fit into the queue; none was added.
        """
        if len(self._queue) + len(items) > self._queue_size:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[R]] = [loop.create_future() for _ in items]
        with self._lock:
            self._queue.extend(zip(items, futures, strict=True))
            has_idle_thread = self._idle_threads > 0
        if has_idle_thread:
            # Not at once: items that arrive in one iteration of the event loop form one batch.
            loop.call_soon(self._dispatch)
        if len(futures) == 1:
            return [await futures[0]]
        return list(await asyncio.gather(*futures))

    def close(self) -> None:
        """Drop waiting items and stop the threads."""
        with self._lock:
            self._queue.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _dispatch(self) -> None:
        """Split the waiting items evenly among the idle threads."""
        batches = []
        with self._lock:
            while self._idle_threads and self._queue:
                batch = self._next_batch(math.ceil(len(self._queue) / self._idle_threads))
                if batch:
                    self._idle_threads -= 1
                    batches.append(batch)
        for batch in batches:
            self._submit(batch)

    def _next_batch(self, n: int) -> list[tuple[T, "asyncio.Future[R]"]]:
        """Pop up to ``n`` items, without those whose caller was cancelled."""
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._queue and len(batch) < min(n, self._max_batch):
            entry = self._queue.popleft()
            if not entry[1].done():
                batch.append(entry)
        return batch

    def _submit(self, batch: list[tuple[T, "asyncio.Future[R]"]]) -> None:
        futures = [future for _, future in batch]
        call = self._executor.submit(self._run, [item for item, _ in batch])
        call.add_done_callback(partial(self._on_done, futures))

    def _on_done(self, futures: list["asyncio.Future[R]"], call: "Future[Sequence[R]]") -> None:
        """Submit the next batch, then deliver this one; called in the thread that ran it."""
        if call.cancelled():
            return
        with self._lock:
            batch = self._next_batch(self._max_batch)
            if not batch:
                self._idle_threads += 1
        if batch:
            self._submit(batch)
        loop = futures[0].get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set_results, futures, call)


def _set_results(futures: list["asyncio.Future[R]"], call: "Future[Sequence[R]]") -> None:
    error = call.exception()
    for position, future in enumerate(futures):
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(call.result()[position])
