"""Streamed batches are those of resident images, in buffers that are reused when they may be."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cv_factory.training import batches
from cv_factory.training.batches import ResidentImages, StreamedImages

CPU = torch.device("cpu")
N, SHAPE = 40, (5, 6, 3)
#: Of some batches, some larger than the one before.
SIZES = [4, 7, 0, 1, 8, 8, 8, 4]


@pytest.fixture
def images(tmp_path: Path) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(0).integers(0, 256, (N, *SHAPE), dtype=np.uint8)
    np.save(tmp_path / "images.npy", values)
    mapped: np.ndarray[Any, Any] = np.load(tmp_path / "images.npy", mmap_mode="r")
    return mapped


def sources(images: np.ndarray[Any, Any], padding: int) -> tuple[ResidentImages, StreamedImages]:
    labels, indices = torch.arange(N), np.random.default_rng(1).permutation(N)
    arguments = (images, labels, indices, padding, CPU)
    return ResidentImages(*arguments), StreamedImages(*arguments)


def count_loads(monkeypatch: pytest.MonkeyPatch, numbers: dict[int, threading.Event]) -> set[int]:
    """Set an event when as many batches are loaded; return the buffers' addresses."""
    load, addresses, loaded = StreamedImages._load_batch, set(), iter(range(1, 1000))

    def counted(source: StreamedImages, positions: torch.Tensor, buffer: torch.Tensor) -> Any:
        batch, buffer = load(source, positions, buffer)
        addresses.add(buffer.data_ptr())
        numbers.get(next(loaded), threading.Event()).set()
        return batch, buffer

    monkeypatch.setattr(StreamedImages, "_load_batch", counted)
    return addresses


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("chunk", [1, 300, 2**20])
def test_streamed_batches_equal_resident_ones(
    images: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch, padding: int, chunk: int
) -> None:
    monkeypatch.setattr(batches, "_CHUNK_BYTES", chunk)
    resident, streamed = sources(images, padding)
    for epoch in range(3):
        order = torch.randperm(N, generator=torch.Generator().manual_seed(epoch))
        positions = torch.split(order, SIZES)
        pairs = zip(resident.batches(positions), streamed.batches(positions), strict=True)
        for one, other in pairs:
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


def test_buffers_are_reused(images: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = count_loads(monkeypatch, {})
    for _ in sources(images, 1)[1].batches([torch.arange(8)] * 100):
        pass
    assert 1 <= len(addresses) <= batches._BUFFERS


def test_a_batch_stays_until_the_next_is_requested(
    images: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    n = batches._BUFFERS
    all_full, refilled = threading.Event(), threading.Event()
    count_loads(monkeypatch, {n: all_full, n + 1: refilled})
    positions = [torch.arange(i, i + 4) for i in range(n + 2)]
    resident, streamed = sources(images, 1)
    expected = list(resident.batches(positions))
    stream = streamed.batches(positions)
    first, _ = next(stream)
    assert all_full.wait(60)
    assert not refilled.wait(0.3), "no buffer was free"
    assert torch.equal(first, expected[0][0])
    second, _ = next(stream)
    assert refilled.wait(60)
    assert torch.equal(first, expected[n][0]), "its buffer was free"
    assert torch.equal(second, expected[1][0])


def test_streaming_ends_its_thread_and_reports_its_errors(images: np.ndarray[Any, Any]) -> None:
    class Broken(np.ndarray[Any, Any]):
        def __getitem__(self, key: object) -> Any:
            raise IndexError("the file is gone")

    def read(source: StreamedImages) -> Iterator[Any]:
        return source.batches(iter([torch.arange(2)] * 100))

    stream = read(sources(images, 0)[1])
    assert next(stream)[0].shape == (2, *SHAPE)
    threads = threading.active_count()
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads - 1
    with pytest.raises(IndexError, match="the file is gone"):
        list(read(sources(images.view(Broken), 0)[1]))
    assert threading.active_count() == threads - 1
