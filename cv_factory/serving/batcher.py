"""Bounded micro-batcher: items that wait while a batch runs form the next batch.

It never delays a batch to fill it, and knows neither images nor HTTP.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Batch = list[tuple[T, asyncio.Future[R]]]


class QueueFullError(Exception):
    """The queue cannot take the items; retry later."""


class MicroBatcher(Generic[T, R]):
    """Runs a function on batches of up to ``max_batch`` items, first in, first out.

    A thread that finishes a batch takes the next one itself, without waiting for the event loop.
    Where nothing else waits or runs, a short run blocks the event loop for less time than a thread
    would cost.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        *,
        max_batch: int,
        queue_size: int,
        threads: int = 1,
        max_inline_s: float = 0.0,
    ) -> None:
        """Prepare the queue; threads start with the first items.

        Args:
            run: Computes one result an item of a batch; called in the batcher's threads, and
                on the event loop for a lone item.
            max_batch: Maximum number of items in one call.
            queue_size: Maximum number of waiting items, besides those that run.
            threads: Maximum number of concurrent calls.
            max_inline_s: A lone item is run on the event loop if the last one took less than this.
        """
        self._run = run
        self._max_batch = max_batch
        self._queue_size = queue_size
        self._queue: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="graph")
        self._threads = self._idle_threads = threads
        self._max_inline_s = max_inline_s
        self._lone_run_s = math.inf
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
        if has_idle_thread and len(self._queue) >= self._max_batch > 1:
            self._dispatch()
        elif has_idle_thread:
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
        """Split the waiting items evenly among the idle threads; run a lone short one here."""
        batches = []
        with self._lock:
            is_inline = (
                len(self._queue) == 1
                and self._idle_threads == self._threads
                and self._lone_run_s < self._max_inline_s
            )
            while self._idle_threads and self._queue:
                batch = self._next_batch(math.ceil(len(self._queue) / self._idle_threads))
                if batch:
                    self._idle_threads -= not is_inline
                    batches.append(batch)
        for batch in batches:
            if is_inline:
                _set_results(batch, self._run_batch(batch))
            else:
                self._executor.submit(self._work, batch)

    def _next_batch(self, n: int) -> Batch[T, R]:
        """Pop up to ``n`` items, without those whose caller was cancelled."""
        batch: Batch[T, R] = []
        while self._queue and len(batch) < min(n, self._max_batch):
            entry = self._queue.popleft()
            if not entry[1].done():
                batch.append(entry)
        return batch

    def _work(self, batch: Batch[T, R]) -> None:
        """Run a batch, and then others until none waits; called in a thread."""
        while batch:
            results = self._run_batch(batch)
            with self._lock:
                next_batch = self._next_batch(self._max_batch)
                if not next_batch:
                    self._idle_threads += 1
            loop = batch[0][1].get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_set_results, batch, results)
            batch = next_batch

    def _run_batch(self, batch: Batch[T, R]) -> Sequence[R | Exception]:
        """Return the results, or the error in place of each."""
        start = time.perf_counter()
        try:
            return self._run([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 (every caller gets it)
            return [error] * len(batch)
        finally:
            if len(batch) == 1:
                self._lone_run_s = time.perf_counter() - start


def _set_results(batch: Batch[T, R], results: Sequence[R | Exception]) -> None:
    for (_, future), result in zip(batch, results, strict=True):
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
