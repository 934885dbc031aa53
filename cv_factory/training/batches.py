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

#: Of one epoch: with the caller, being filled, and prefetched.
_BUFFERS = 1 + 1 + 4
#: Images are read and padded at a time, in memory that the C library reuses.
_CHUNK_BYTES = 2**20
_MB = 2**20

#: Padded images uint8 ``(n, H + 2 p, W + 2 p, C)`` and labels int64 ``(n,)``, on the device.
Batch = tuple[torch.Tensor, torch.Tensor]
_Prefetched = tuple[Batch, torch.Tensor]


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
        """Yield one batch for each tensor of positions, int64 ``(n,)`` on the CPU.

        A batch is valid until the next is requested: its memory may be filled with another one.
        """

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
    """Images that a thread prefetches from their memory-mapped file, into buffers that are reused.

    A buffer is free, being filled, full, or with the caller, who returns it by the next request.
    """

    def batches(self, positions: Iterable[torch.Tensor]) -> Iterator[Batch]:
        """Yield batches; see ``BatchSource``."""
        # The last in is the first out: None, which ends the thread, overtakes the buffers.
        free: queue.LifoQueue[torch.Tensor | None] = queue.LifoQueue()
        height, width, channels = self._images.shape[1:]
        shape = (height + 2 * self._padding, width + 2 * self._padding, channels)
        for _ in range(_BUFFERS):
            free.put(torch.empty((0, *shape), dtype=torch.uint8))
        full: queue.Queue[_Prefetched | Exception | None] = queue.Queue()
        thread = threading.Thread(target=self._prefetch, args=(positions, free, full), daemon=True)
        thread.start()
        try:
            while (prefetched := full.get()) is not None:
                if isinstance(prefetched, Exception):
                    raise prefetched
                (images, labels), buffer = prefetched
                yield (
                    images.to(self._device, non_blocking=True),
                    labels.to(self._device, non_blocking=True),
                )
                free.put(buffer)
        finally:  # also where the batches are not read to the end
            free.put(None)
            thread.join()

    def _prefetch(
        self,
        positions: Iterable[torch.Tensor],
        free: queue.LifoQueue[torch.Tensor | None],
        full: queue.Queue[_Prefetched | Exception | None],
    ) -> None:
        try:
            for batch in positions:
                if (buffer := free.get()) is None:
                    return
                full.put(self._load_batch(batch, buffer))
        except Exception as error:  # noqa: BLE001  (raised by batches(), whatever it is)
            full.put(error)
        finally:
            full.put(None)

    def _load_batch(self, positions: torch.Tensor, buffer: torch.Tensor) -> _Prefetched:
        """Load a batch into a buffer, or into a larger one that replaces it."""
        rows, shape = self._indices[positions.numpy()], buffer.shape[1:]
        if len(buffer) < len(rows):
            buffer = buffer.new_empty((len(rows), *shape))
        images, labels = buffer[: len(rows)], self.labels[positions]
        chunk = max(1, _CHUNK_BYTES // shape.numel())
        for start in range(0, len(rows), chunk):
            images[start : start + chunk] = self._load(rows[start : start + chunk])
        if self._device.type == "cuda":  # PyTorch reuses pinned memory once it has been copied
            images, labels = images.pin_memory(), labels.pin_memory()
        return (images, labels), buffer


def fits_in_memory(
    n_images: int, image_shape: tuple[int, int, int], padding: int, megabytes: int
) -> bool:
    """Whether the padded images take at most ``megabytes`` MiB."""
    height, width, channels = image_shape
    size = (height + 2 * padding) * (width + 2 * padding) * channels
    return n_images * size <= megabytes * _MB
