"""From a source's records to an ImageDataset: decoded by a pool of workers, streamed to disk."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.config import DataConfig
from cv_factory.cpu import available_cpus
from cv_factory.data.dataset import (
    MANIFEST_COLUMNS,
    NO_LABEL,
    ImageDataset,
    ScratchFile,
    UnreadableImage,
)
from cv_factory.data.decode import decode, read_header
from cv_factory.data.image_statistics import image_statistics
from cv_factory.data.npy_stream import NpyStreamWriter
from cv_factory.data.sources import ImageRecord, ImageSource, open_source
from cv_factory.errors import DataError, ImageError
from cv_factory.progress import say, track

_BATCH = 1024
_PROBED_IMAGES = 200
_LARGEST_KEPT_SIDE = 128
_DEFAULT_SIDE = 64
_LISTED_PROBLEMS = 20


@dataclass(frozen=True)
class ImageFormat:
    """Size in pixels and channels that every image is converted to."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class _Decoded:
    record: ImageRecord
    pixels: npt.NDArray[np.uint8] | None
    width: int = 0
    height: int = 0
    mode: str = ""
    problem: str = ""


def ingest(config: DataConfig) -> ImageDataset:
    """Read, decode and describe the images that the configuration names.

    Raises:
        DataError: The source is missing or empty, or more images than the configured share are
            unreadable; the message lists them.
    """
    source = open_source(config)
    indices = _chosen(len(source), config.limit)
    target = infer_format(source, config, indices)
    say(f"{source.description}: images as {target.height}x{target.width}x{target.channels}")
    scratch = ScratchFile("images.npy")
    shape = (target.height, target.width, target.channels)
    collected = _Collector(source.class_names)
    decoded = track(_decode_all(source, indices, target, config), "Reading images", len(indices))
    with NpyStreamWriter(scratch.path, shape, np.uint8) as writer:
        for batch in _batched(decoded, _BATCH):
            readable = collected.add(batch)
            if len(readable):
                writer.append(readable)
    _check_unreadable(collected.unreadable, len(indices), config.max_unreadable_share)
    return ImageDataset(
        images=np.load(scratch.path, mmap_mode="r", allow_pickle=False),
        manifest=collected.manifest(),
        class_names=source.class_names,
        source=source.description,
        unreadable=tuple(collected.unreadable),
        backing=scratch,
    )


def infer_format(
    source: ImageSource, config: DataConfig, indices: npt.NDArray[np.int64]
) -> ImageFormat:
    """Complete the configured format from the headers of up to 200 images.

    Images that all have one size of at most 128 pixels a side keep it; others become 64x64.
    Images that all are grey get one channel; others become RGB.

    Raises:
        DataError: None of the probed images can be read.
    """
    if config.height and config.width and config.channels:
        return ImageFormat(config.height, config.width, config.channels)
    probed = indices[_chosen(len(indices), _PROBED_IMAGES)]
    headers = [h for record in source.records(probed) if (h := _probe(record)) is not None]
    if not headers:
        raise DataError(
            f"{source.description}: none of the {len(probed)} files looked at is an image. "
            "Is this the right folder?"
        )
    sizes = {(height, width) for height, width, _ in headers}
    height, width = sizes.pop() if len(sizes) == 1 else (_DEFAULT_SIDE, _DEFAULT_SIDE)
    if max(height, width) > _LARGEST_KEPT_SIDE:
        height = width = _DEFAULT_SIDE
    return ImageFormat(
        config.height or height,
        config.width or width,
        config.channels or max(channels for _, _, channels in headers),
    )


def _probe(record: ImageRecord) -> tuple[int, int, int] | None:
    """Return height, width and natural number of channels; None for what cannot be read."""
    if isinstance(record.content, np.ndarray):
        height, width, channels = record.content.shape
        return height, width, channels
    try:
        header = read_header(record.content)
    except ImageError:
        return None
    return header.height, header.width, 1 if header.is_grey else 3


def _chosen(n: int, limit: int | None) -> npt.NDArray[np.int64]:
    """Positions of all ``n`` records, or of ``limit`` of them evenly spread."""
    if limit is None or limit >= n:
        return np.arange(n, dtype=np.int64)
    return np.linspace(0, n - 1, limit).astype(np.int64)


def _decode_all(
    source: ImageSource, indices: npt.NDArray[np.int64], target: ImageFormat, config: DataConfig
) -> Iterator[_Decoded]:
    """Decode in order, in as many threads as there are CPUs, with a bounded look-ahead."""
    convert = partial(_decode_one, target=target, max_pixels=config.max_pixels)
    workers = available_cpus()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        pending: deque[Future[_Decoded]] = deque()
        for record in source.records(indices):
            if isinstance(record.content, np.ndarray):
                # Pixels need no decoding: a thread would cost more than it saves.
                done: Future[_Decoded] = Future()
                done.set_result(convert(record))
                pending.append(done)
            else:
                pending.append(pool.submit(convert, record))
            if len(pending) >= 16 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _decode_one(record: ImageRecord, target: ImageFormat, max_pixels: int) -> _Decoded:
    if record.problem:
        return _Decoded(record, None, problem=record.problem)
    if isinstance(record.content, np.ndarray):
        height, width, channels = record.content.shape
        if (height, width, channels) == (target.height, target.width, target.channels):
            mode = "L" if channels == 1 else "RGB"
            return _Decoded(record, record.content, width, height, mode)
        record = replace(record, content=_encode_png(record.content))
    assert isinstance(record.content, bytes)
    try:
        image = decode(
            record.content,
            height=target.height,
            width=target.width,
            channels=target.channels,
            max_pixels=max_pixels,
        )
    except ImageError as error:
        return _Decoded(replace(record, content=b""), None, problem=str(error))
    header = image.header
    return _Decoded(
        replace(record, content=b""), image.pixels, header.width, header.height, header.mode
    )


def _encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode an array losslessly, so that the one decoder also converts arrays."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


class _Collector:
    """Gathers manifest rows and unreadable images while batches pass by."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self._labels = {name: number for number, name in enumerate(class_names)}
        self._parts: list[pd.DataFrame] = []
        self.unreadable: list[UnreadableImage] = []

    def add(self, batch: list[_Decoded]) -> npt.NDArray[np.uint8]:
        """Record a batch; return the pixels of its readable images, uint8 ``(n, H, W, C)``."""
        self.unreadable += [
            UnreadableImage(d.record.location, d.problem) for d in batch if d.pixels is None
        ]
        good = [d for d in batch if d.pixels is not None]
        if not good:
            return np.empty((0,), np.uint8)
        images = np.stack([d.pixels for d in good if d.pixels is not None])
        statistics = image_statistics(images)
        part = pd.DataFrame(
            {
                "id": [d.record.id for d in good],
                "label": [self._labels.get(d.record.label or "", NO_LABEL) for d in good],
                "source": [d.record.location for d in good],
                "pixels_sha256": [hashlib.sha256(image.data).hexdigest() for image in images],
                "width": [d.width for d in good],
                "height": [d.height for d in good],
                "mode": [d.mode for d in good],
                "brightness": statistics.brightness,
                "contrast": statistics.contrast,
                "sharpness": statistics.sharpness,
                "official_split": [d.record.official_split for d in good],
            }
        )
        self._parts.append(part.astype(MANIFEST_COLUMNS))
        return images

    def manifest(self) -> pd.DataFrame:
        """Return the manifest of all batches."""
        return pd.concat(self._parts, ignore_index=True)


def _batched(items: Iterable[_Decoded], size: int) -> Iterator[list[_Decoded]]:
    batch: list[_Decoded] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _check_unreadable(unreadable: list[UnreadableImage], n: int, allowed: float) -> None:
    if not unreadable:
        return
    listing = "\n".join(f"  {u.source}: {u.reason}" for u in unreadable[:_LISTED_PROBLEMS])
    if len(unreadable) > _LISTED_PROBLEMS:
        listing += f"\n  and {len(unreadable) - _LISTED_PROBLEMS} more"
    share = len(unreadable) / n
    if share > allowed or len(unreadable) == n:
        raise DataError(
            f"{len(unreadable)} of {n} images ({share:.1%}) cannot be read, allowed are "
            f"{allowed:.1%} (data.max_unreadable_share):\n{listing}\n"
            "Repair or remove them, or allow a larger share."
        )
    say(f"{len(unreadable)} of {n} images cannot be read and are left out:\n{listing}")
