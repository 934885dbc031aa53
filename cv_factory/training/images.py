"""Feeds a training with batches: from the device where the images fit there, else from their file.

Both ways give the same batches bit for bit. Streaming keeps a few batches in memory, however many
images there are.
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from cv_factory.training.augment import pad

_PREFETCHED = 4
_MB = 2**20

#: Padded images uint8 ``(n, H + 2 p, W + 2 p, C)`` and labels int64 ``(n,)``, on the device.
Batch = tuple[torch.Tensor, torch.Tensor]


class Images(Protocol):
    """Labelled images of one part of the split."""

    #: Labels int64 ``(n,)`` on the CPU.
    labels: torch.Tensor

    def batches(self, wanted: Iterable[torch.Tensor]) -> Iterator[Batch]:
        """Yield the images at each of the wanted positions, int64 ``(n,)`` on the CPU."""


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

    def batches(self, wanted: Iterable[torch.Tensor]) -> Iterator[Batch]:
        """See ``Images``."""
        for positions in wanted:
            here = positions.to(self._device, non_blocking=True)
            yield self._images[here], self._labels[here]


class StreamedImages:
    """Images that are read from their memory-mapped file, ahead of time, by a thread."""

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: torch.Tensor,
        indices: npt.NDArray[np.int64],
        padding: int,
        device: torch.device,
    ) -> None:
        """Read nothing yet."""
        self.labels = labels
        self._images, self._indices = images, indices
        self._padding, self._device = padding, device

    def batches(self, wanted: Iterable[torch.Tensor]) -> Iterator[Batch]:
        """See ``Images``."""
        ready: queue.Queue[Batch | Exception | None] = queue.Queue(_PREFETCHED)
        stopped = threading.Event()
        thread = threading.Thread(target=self._read, args=(wanted, ready, stopped), daemon=True)
        thread.start()
        try:
            while (batch := ready.get()) is not None:
                if isinstance(batch, Exception):
                    raise batch
                images, labels = (tensor.to(self._device, non_blocking=True) for tensor in batch)
                yield images, labels
        finally:  # also where the batches are not read to the end
            stopped.set()
            while thread.is_alive():
                _drain(ready)
                thread.join(0.01)

    def _read(
        self,
        wanted: Iterable[torch.Tensor],
        ready: "queue.Queue[Batch | Exception | None]",
        stopped: threading.Event,
    ) -> None:
        try:
            for positions in wanted:
                if stopped.is_set():
                    return
                ready.put(self._batch(positions))
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            ready.put(error)  # raised where the batch is waited for
        finally:
            ready.put(None)

    def _batch(self, positions: torch.Tensor) -> Batch:
        chosen = self._indices[positions.numpy()]
        images = pad(torch.from_numpy(np.ascontiguousarray(self._images[chosen])), self._padding)
        labels = self.labels[positions]
        if self._device.type == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        return images, labels


def _drain(ready: "queue.Queue[Batch | Exception | None]") -> None:
    while not ready.empty():
        ready.get_nowait()


def fits(n_images: int, image_shape: tuple[int, int, int], padding: int, megabytes: int) -> bool:
    """Whether padded images take no more than so many MiB."""
    height, width, channels = image_shape
    size = (height + 2 * padding) * (width + 2 * padding) * channels
    return n_images * size <= megabytes * _MB
