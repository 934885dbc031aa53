"""Batches of training images: resident on the device where they fit, else streamed from their file.

Both sources give the same batches bit for bit. Streaming keeps a few batches in memory, however
many images there are.
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from cv_factory.training.augment import pad

_PREFETCH_BATCHES = 4
_MB = 2**20

#: Padded images uint8 ``(n, H + 2 p, W + 2 p, C)`` and labels int64 ``(n,)``, on the device.
Batch = tuple[torch.Tensor, torch.Tensor]


class BatchSource(Protocol):
    """Labeled images of one part of the split."""

    #: Labels int64 ``(n,)`` on the CPU.
    labels: torch.Tensor

    def batches(self, positions: Iterable[torch.Tensor]) -> Iterator[Batch]:
        """Yield one batch for each tensor of positions, int64 ``(n,)`` on the CPU."""


class ResidentImages:
    """Images that lie on the device, padded once."""

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: torch.Tensor,
        indices: npt.NDArray[np.int64],
        padding: int,
        device: torch.device,
    ) -> None:
        """Copy the images at ``indices`` to the device."""
        self.labels = labels
        self._device = device
        self._labels = labels.to(device)
        self._images = pad(torch.from_numpy(np.ascontiguousarray(images[indices])), padding)
        self._images = self._images.to(device)

    def batches(self, positions: Iterable[torch.Tensor]) -> Iterator[Batch]:
        """Yield batches; see ``BatchSource``."""
        for batch in positions:
            on_device = batch.to(self._device, non_blocking=True)
            yield self._images[on_device], self._labels[on_device]


class StreamedImages:
    """Images that a thread prefetches from their memory-mapped file."""

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: torch.Tensor,
        indices: npt.NDArray[np.int64],
        padding: int,
        device: torch.device,
    ) -> None:
        """Refer to the images at ``indices`` of the file; nothing is read yet."""
        self.labels = labels
        self._images, self._indices = images, indices
        self._padding, self._device = padding, device

    def batches(self, positions: Iterable[torch.Tensor]) -> Iterator[Batch]:
        """Yield batches; see ``BatchSource``."""
        batches: queue.Queue[Batch | Exception | None] = queue.Queue(_PREFETCH_BATCHES)
        stop = threading.Event()
        thread = threading.Thread(
            target=self._prefetch, args=(positions, batches, stop), daemon=True
        )
        thread.start()
        try:
            while (batch := batches.get()) is not None:
                if isinstance(batch, Exception):
                    raise batch
                images, labels = (tensor.to(self._device, non_blocking=True) for tensor in batch)
                yield images, labels
        finally:  # also where the batches are not read to the end
            stop.set()
            while thread.is_alive():
                _drain(batches)
                thread.join(0.01)

    def _prefetch(
        self,
        positions: Iterable[torch.Tensor],
        batches: "queue.Queue[Batch | Exception | None]",
        stop: threading.Event,
    ) -> None:
        try:
            for batch in positions:
                if stop.is_set():
                    return
                batches.put(self._load(batch))
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            batches.put(error)  # raised by batches()
        finally:
            batches.put(None)

    def _load(self, positions: torch.Tensor) -> Batch:
        rows = self._indices[positions.numpy()]
        images = pad(torch.from_numpy(np.ascontiguousarray(self._images[rows])), self._padding)
        labels = self.labels[positions]
        if self._device.type == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        return images, labels


def _drain(batches: "queue.Queue[Batch | Exception | None]") -> None:
    while not batches.empty():
        batches.get_nowait()


def fits_in_memory(
    n_images: int, image_shape: tuple[int, int, int], padding: int, megabytes: int
) -> bool:
    """Whether the padded images take at most ``megabytes`` MiB."""
    height, width, channels = image_shape
    size = (height + 2 * padding) * (width + 2 * padding) * channels
    return n_images * size <= megabytes * _MB
