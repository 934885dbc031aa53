"""Reading and decoding of a source's records, for ingestion and batch inference.

Needs Pillow and NumPy only, as the decoder itself.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cv_factory.config.data import DataConfig
from cv_factory.data.bit_depth import StoredValues, ValueRange
from cv_factory.data.decode import decode
from cv_factory.data.encode import encode_png
from cv_factory.data.sources import ImageRecord
from cv_factory.errors import ImageError

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class ImageFormat:
    """Size in pixels and channels that every image is converted to.

    ``value_range`` are the stored values that become black and white in images of more than 8 bits.
    """

    height: int
    width: int
    channels: int
    value_range: ValueRange | None = None


@dataclass(frozen=True)
class DecodedRecord:
    """A record without its content, and what became of that.

    Attributes:
        record: As the source gave it; ``content`` is empty.
        pixels: uint8 ``(H, W, C)``; None where the image cannot be used.
        width: Columns of the original.
        height: Rows of the original.
        mode: Pillow's mode of the original.
        problem: Why there are no pixels.
        values: What is stored in an original of more than 8 bits a channel.
    """

    record: ImageRecord
    pixels: npt.NDArray[np.uint8] | None
    width: int = 0
    height: int = 0
    mode: str = ""
    problem: str = ""
    values: StoredValues | None = None


def decode_record(record: ImageRecord, target: ImageFormat, config: DataConfig) -> DecodedRecord:
    """Read and decode one record; a record that cannot be is returned with the reason."""
    if record.problem:
        return DecodedRecord(record, None, problem=record.problem)
    bare = replace(record, content=b"")
    try:
        content = record.read()
        if isinstance(content, np.ndarray):
            height, width, channels = content.shape
            if (height, width, channels) == (target.height, target.width, target.channels):
                return DecodedRecord(bare, content, width, height, "L" if channels == 1 else "RGB")
            content = encode_png(content)
        image = decode(
            content,
            height=target.height,
            width=target.width,
            channels=target.channels,
            max_pixels=config.max_pixels,
            max_aspect_ratio=config.max_aspect_ratio,
            value_range=target.value_range,
        )
    except ImageError as error:
        return DecodedRecord(bare, None, problem=str(error))
    header = image.header
    return DecodedRecord(
        bare, image.pixels, header.width, header.height, header.mode, values=image.values
    )


def sample_positions(n: int, limit: int | None) -> npt.NDArray[np.int64]:
    """Positions of all ``n`` records, or of ``limit`` of them evenly spread."""
    if limit is None or limit >= n:
        return np.arange(n, dtype=np.int64)
    return np.linspace(0, n - 1, limit).astype(np.int64)


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of ``size``; the last one may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def results_in_order(
    tasks: Iterable[S], submit: Callable[[S], Future[T]], ahead: int
) -> Iterator[T]:
    """Yield the result of each task in order, with no more than ``ahead`` of them submitted."""
    pending: deque[Future[T]] = deque()
    for task in tasks:
        pending.append(submit(task))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
