"""Micro-batches: what waits runs together, in order, split among threads."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from cv_factory.serving.batcher import MicroBatcher, QueueFullError


def test_waiting_items_run_together_in_order_and_fail_alone() -> None:
    sizes: list[int] = []
    is_full = threading.Event()

    def double(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        is_full.wait()
        if 13 in items:
            raise ValueError("unlucky")
        return [2 * item for item in items]

    async def work() -> list[Any]:
        batcher = MicroBatcher(double, max_batch=4, queue_size=12)
        first = asyncio.create_task(batcher([1]))
        while not sizes:
            await asyncio.sleep(0)
        rest = [asyncio.create_task(batcher([n])) for n in (2, 3, 4, 5, 13)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher(list(range(8)))
        is_full.set()
        results = await asyncio.gather(first, *rest, return_exceptions=True)
        last = await batcher([7])
        batcher.close()
        return [*results, last]

    results = asyncio.run(work())
    assert results[:5] == [[2], [4], [6], [8], [10]]
    assert isinstance(results[5], ValueError)
    assert results[6] == [14]
    assert sizes[:3] == [1, 4, 1]


def test_waiting_items_are_split_evenly_among_threads() -> None:
    both = threading.Barrier(2)

    def sizes(items: Sequence[int]) -> list[int]:
        both.wait()
        return [len(items)] * len(items)

    async def work() -> list[list[int]]:
        batcher = MicroBatcher(sizes, max_batch=8, queue_size=12, threads=2)
        results = await asyncio.gather(*(batcher([n]) for n in range(6)))
        batcher.close()
        return results

    assert asyncio.run(work()) == [[3]] * 6


def test_lone_items_run_on_the_event_loop_where_they_are_short_and_nothing_else_runs() -> None:
    in_thread = threading.Event()
    is_released = threading.Event()

    def run(items: Sequence[str]) -> list[str]:
        if items == ["long"]:
            in_thread.set()
            is_released.wait()
        if items == ["bad"]:
            raise ValueError("unlucky")
        name = threading.current_thread().name
        return ["loop" if name == "MainThread" else "thread"] * len(items)

    async def work() -> None:
        batcher = MicroBatcher(run, max_batch=8, queue_size=12, threads=2, max_inline_s=3600)
        assert await batcher(["first"]) == ["thread"]
        assert await batcher(["lone"]) == ["loop"]
        with pytest.raises(ValueError, match="unlucky"):
            await batcher(["bad"])
        assert await batcher(["two", "items"]) == ["thread", "thread"]
        both = asyncio.gather(batcher(["long"]), batcher(["of one iteration"]))
        while not in_thread.is_set():
            await asyncio.sleep(0)
        assert await batcher(["beside another"]) == ["thread"]
        is_released.set()
        assert list(await both) == [["thread"], ["thread"]]
        batcher.close()
        single = MicroBatcher(run, max_batch=1, queue_size=12, threads=2, max_inline_s=3600)
        assert await single(["first"]) == ["thread"]
        two = await asyncio.gather(single(["one of two"]), single(["the other"]))
        assert list(two) == [["thread"], ["thread"]]
        single.close()
        never = MicroBatcher(run, max_batch=8, queue_size=12)
        assert [await never(["lone"]) for _ in range(2)] == [["thread"], ["thread"]]
        never.close()

    asyncio.run(work())


def test_a_full_batch_does_not_wait_for_the_event_loop() -> None:
    has_started = threading.Event()

    def run(items: Sequence[int]) -> Sequence[int]:
        has_started.set()
        return items

    async def block_the_loop() -> bool:
        return has_started.wait(60)

    async def work() -> None:
        batcher = MicroBatcher(run, max_batch=2, queue_size=12)
        results, is_started = await asyncio.gather(batcher([1, 2]), block_the_loop())
        batcher.close()
        assert is_started
        assert results == [1, 2]

    asyncio.run(work())
