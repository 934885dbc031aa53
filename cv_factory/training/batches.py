"""Batches of training images: resident on the device where they fit, else streamed from their file.

Both sources give the same batches bit for bit. Streaming keeps a few batches in memory, however
many images there are.
"""

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from cv_factory.training.augment import pad

_PREFETCH_BATCHES = 4
_MB = 2**20

#: Padded images uint8 ``(n, H + 2 p, W + 2 p, C)`` and labels int64 ``(n,)``, on the device.
Batch = tuple[torch.Tensor, torch.Tensor]


class BatchSource(ABC):
    """Labeled images of one part of the split.

    Attributes:
        labels: int64 ``(n,)`` on the CPU.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: torch.Tensor,
        indices: npt.NDArray[np.int64],
        padding: int,
        device: torch.device,
    ) -> None:
        """Refer to the images at ``indices`` and their labels; nothing is read yet."""
        self.labels = labels
        self._images, self._indices = images, indices
        self._padding, self._device = padding, device

    @abstractmethod
    def batches(self, positions: Iterable[torch.Tensor]) -> Iterator[Batch]:
        """Yield one batch for each tensor of positions, int64 ``(n,)`` on the CPU."""

    def _load(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Read and pad rows of the images, on the CPU."""
        return pad(torch.from_numpy(np.ascontiguousarray(self._images[rows])), self._padding)


class ResidentImages(BatchSource):
    """Images that lie on the device, padded once."""

    @cached_property
    def _resident(self) -> Batch:
        return self._load(self._indices).to(self._device), self.labels.to(self._device)

    def batches(self, positions: Iterable[torch.Tensor]) -> Iterator[Batch]:
        """Yield batches; see ``BatchSource``."""
        images, labels = self._resident
        for batch in positions:
            on_device = batch.to(self._device, non_blocking=True)
            yield images[on_device], labels[on_device]


class StreamedImages(BatchSource):
    """Images that a thread prefetches from their memory-mapped file."""

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
                batches.put(self._load_batch(batch))
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            batches.put(error)  # raised by batches()
        finally:
            batches.put(None)

    def _load_batch(self, positions: torch.Tensor) -> Batch:
        images, labels = self._load(self._indices[positions.numpy()]), self.labels[positions]
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
