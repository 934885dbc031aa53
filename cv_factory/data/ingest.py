"""From a source's records to an ImageDataset: decoded by a pool of workers, streamed to disk."""

import hashlib
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.artifacts.npy_stream import NpyStreamWriter
from cv_factory.config.data import DataConfig
from cv_factory.data.additional_images import append_images
from cv_factory.data.bit_depth import StoredValues
from cv_factory.data.dataset import NO_LABEL, ImageDataset, ScratchFile, UnreadableImage
from cv_factory.data.decode import GRAY_MODES, read_header
from cv_factory.data.image_manifest import ManifestWriter, map_manifest
from cv_factory.data.image_statistics import image_statistics
from cv_factory.data.reading import (
    DecodedRecord,
    ImageFormat,
    chunked,
    decode_record,
    results_in_order,
    sample_positions,
)
from cv_factory.data.sources import ImageRecord, ImageSource, open_source
from cv_factory.errors import DataError, ImageError
from cv_factory.progress import track
from cv_factory.reporting.numbers import format_beside_limit, format_share

_log = logging.getLogger(__name__)

_BATCH = 1024
_BATCH_BYTES = 64 * 2**20
_TASK = 8
_N_PROBE_IMAGES = 200
_MAX_INFERRED_SIDE = 128
_DEFAULT_SIDE = 64
_MAX_LISTED_PROBLEMS = 20
_MAX_LISTED_REASONS = 10
_MIN_EXAMPLES = 3
#: Fewer unreadable images never end an ingestion before its end.
_MIN_FAILURES_TO_ABORT = 1000


def ingest(config: DataConfig) -> ImageDataset:
    """Read, decode and describe the images that the configuration names.

    Raises:
        DataError: The source is missing or empty, or more images than the configured share are
            unreadable; the message lists them.
    """
    with open_source(config) as source:
        dataset = ingest_source(source, config)
    if config.additional is None:
        return dataset
    # Of the same size, and with the same black and white.
    height, width, channels = dataset.image_shape
    image_format = {"height": height, "width": width, "channels": channels}
    added = config.additional_config.model_copy(update=image_format)
    with open_source(added) as source:
        return append_images(dataset, ingest_source(source, added))


def ingest_source(source: ImageSource, config: DataConfig) -> ImageDataset:
    """Read, decode and describe the images of an open source, as ``ingest`` does.

    Memory does not grow with the number of images: pixels and manifest rows go to temporary files.
    """
    indices = sample_positions(len(source), config.limit)
    target = infer_format(source, config, indices)
    _log.info(
        f"{source.description}: {len(source.class_names)} classes, {len(indices)} images as "
        f"{target.height}x{target.width}x{target.channels}"
    )
    scratch = ScratchFile("images.npy")
    rows = scratch.path.with_name("manifest.arrow")
    shape = (target.height, target.width, target.channels)
    decoded = track(_decode_all(source, indices, target, config), "Reading images", len(indices))
    with (
        NpyStreamWriter(scratch.path, shape, np.uint8) as images,
        ManifestWriter(rows) as manifest,
    ):
        collected = _Collector(source.class_names, images, manifest)
        for batch in chunked(decoded, _get_batch_size(target)):
            collected.add(batch)
            _abort_on_failures(collected.unreadable, len(indices), config.max_unreadable_share)
    _check_unreadable(collected.unreadable, len(indices), config.max_unreadable_share)
    table = map_manifest(rows)
    notices = (*source.notices, *_describe_conversions(table, target, config))
    for notice in notices:
        _log.info(notice)
    return ImageDataset(
        images=np.load(scratch.path, mmap_mode="r", allow_pickle=False),
        manifest=table,
        class_names=source.class_names,
        source=source.description,
        unreadable=tuple(collected.unreadable),
        notices=notices,
        backing=scratch,
        value_range=target.value_range,
        stored_values=collected.stored_values,
    )


def infer_format(
    source: ImageSource, config: DataConfig, indices: npt.NDArray[np.int64]
) -> ImageFormat:
    """Complete the configured format from the headers of up to 200 images.

    Images that all have one size of at most 128 pixels a side keep it; others become squares of
    ``data.side``, 64 where it is not given. Images that all are grey get one channel; others become
    RGB.

    Raises:
        DataError: None of the probed images can be read.
    """
    value_range = (config.value_range[0], config.value_range[1]) if config.value_range else None
    if config.height and config.width and config.channels:
        return ImageFormat(config.height, config.width, config.channels, value_range)
    probed = indices[sample_positions(len(indices), _N_PROBE_IMAGES)]
    probes = probe_images(source, probed)
    headers = [probe for probe in probes if not isinstance(probe, UnreadableImage)]
    if not headers:
        problems = [probe for probe in probes if isinstance(probe, UnreadableImage)]
        raise DataError(
            f"{source.description}: none of the {len(probed)} images looked at can be read:\n"
            f"{_list_problems(problems)}"
        )
    sizes = {(height, width) for height, width, _ in headers}
    side = config.side or _DEFAULT_SIDE
    height, width = sizes.pop() if len(sizes) == 1 else (side, side)
    if max(height, width) > _MAX_INFERRED_SIDE:
        height = width = side
    return ImageFormat(
        config.height or height,
        config.width or width,
        config.channels or max(channels for _, _, channels in headers),
        value_range,
    )


def _describe_conversions(
    manifest: pd.DataFrame, target: ImageFormat, config: DataConfig
) -> Iterator[str]:
    """Yield what the inferred format, which a sample decided, cost the other images."""
    n = len(manifest)
    n_color = n - int(manifest["mode"].isin(GRAY_MODES).sum())
    if config.channels is None and target.channels == 1 and n_color:
        yield (
            f"{n_color:,} of {n:,} images are in colour and were made grey, since the channels "
            "were inferred from a sample of grey ones; data.channels=3 keeps the colours."
        )
    size = (target.height, target.width)
    n_resized = n - int(((manifest["height"] == size[0]) & (manifest["width"] == size[1])).sum())
    # The default size is no size that the sample had.
    side = config.side or _DEFAULT_SIDE
    is_common = size != (side, side) or 2 * n_resized < n
    if config.height is None and n_resized and is_common:
        yield (
            f"{n_resized:,} of {n:,} images are not {size[0]}x{size[1]}, which was inferred from a "
            "sample, and were resized; data.height and data.width set another size."
        )


def probe_images(
    source: ImageSource, indices: npt.NDArray[np.int64]
) -> list[tuple[int, int, int] | UnreadableImage]:
    """Return height, width and natural channels of the images at these positions, or why not."""
    with ThreadPoolExecutor(source.readers, thread_name_prefix="probe") as pool:
        return list(pool.map(_probe, source.records(indices)))


def _probe(record: ImageRecord) -> tuple[int, int, int] | UnreadableImage:
    """Return height, width and natural number of channels, or why the image cannot be read."""
    try:
        if record.problem:
            raise ImageError(record.problem)
        content = record.read()
        if isinstance(content, np.ndarray):
            height, width, channels = content.shape
            return height, width, channels
        header = read_header(content)
    except ImageError as error:
        return UnreadableImage(record.id, record.location, str(error))
    return header.height, header.width, 1 if header.is_gray else 3


def _decode_all(
    source: ImageSource, indices: npt.NDArray[np.int64], target: ImageFormat, config: DataConfig
) -> Iterator[DecodedRecord]:
    """Read and decode in order, in as many threads as the source wants, one batch ahead."""
    convert = partial(decode_record, target=target, config=config)
    with ThreadPoolExecutor(source.readers, thread_name_prefix="decode") as pool:

        def submit(task: list[ImageRecord]) -> Future[list[DecodedRecord]]:
            if not all(isinstance(record.content, np.ndarray) for record in task):
                return pool.submit(_decode_task, task, convert)
            # Pixels need no decoding: a thread would cost more than it saves.
            done: Future[list[DecodedRecord]] = Future()
            done.set_result([convert(record) for record in task])
            return done

        tasks = chunked(source.records(indices), _TASK)
        # While a batch is described and stored, the next one is decoded.
        ahead = max(3 * source.readers, _get_batch_size(target) // _TASK)
        for decoded in results_in_order(tasks, submit, ahead):
            yield from decoded


def _get_batch_size(target: ImageFormat) -> int:
    """Return how many images are described and stored at once: 1,024, or 64 MiB of them."""
    pixels = target.height * target.width * target.channels
    return max(1, min(_BATCH, _BATCH_BYTES // pixels))


def _decode_task(
    records: list[ImageRecord], convert: "partial[DecodedRecord]"
) -> list[DecodedRecord]:
    return [convert(record) for record in records]


class _Collector:
    """Writes pixels and manifest rows, and keeps unreadable images, while batches pass by."""

    def __init__(
        self, class_names: tuple[str, ...], images: NpyStreamWriter, manifest: ManifestWriter
    ) -> None:
        self._labels = {name: number for number, name in enumerate(class_names)}
        self._images = images
        self._manifest = manifest
        self.unreadable: list[UnreadableImage] = []
        self.stored_values: StoredValues | None = None

    def add(self, batch: list[DecodedRecord]) -> None:
        """Record a batch."""
        self.unreadable += [
            UnreadableImage(d.record.id, d.record.location, d.problem)
            for d in batch
            if d.pixels is None
        ]
        good = [d for d in batch if d.pixels is not None]
        if not good:
            return
        for values in (d.values for d in good if d.values is not None):
            self.stored_values = values | self.stored_values if self.stored_values else values
        # Arrays of a source may be transposed, and stacking them would keep that order.
        pixels = np.ascontiguousarray(np.stack([d.pixels for d in good if d.pixels is not None]))
        statistics = image_statistics(pixels)
        self._images.append(pixels)
        self._manifest.append(
            {
                "id": [d.record.id for d in good],
                "label": [self._labels.get(d.record.label or "", NO_LABEL) for d in good],
                "source": [d.record.location for d in good],
                "pixels_sha256": [hashlib.sha256(image.data).hexdigest() for image in pixels],
                "width": [d.width for d in good],
                "height": [d.height for d in good],
                "mode": [d.mode for d in good],
                "brightness": statistics.brightness,
                "contrast": statistics.contrast,
                "sharpness": statistics.sharpness,
                "official_split": [d.record.official_split for d in good],
                "group": [d.record.group for d in good],
                "perceptual_hash": statistics.perceptual_hash,
            }
        )


def _abort_on_failures(unreadable: list[UnreadableImage], n: int, allowed: float) -> None:
    """Abort when 1,000 images, and more than are allowed, failed: the source is unreachable.

    Raises:
        DataError: They did; the message lists the first of them.
    """
    if len(unreadable) > max(_MIN_FAILURES_TO_ABORT, allowed * n):
        raise DataError(
            f"Stopped: {len(unreadable):,} of {n:,} images could not be read so far, allowed are "
            f"{format_share(allowed)} (data.max_unreadable_share):\n{_list_problems(unreadable)}\n"
            "Check that the source can still be reached."
        )


def _list_problems(unreadable: list[UnreadableImage]) -> str:
    """List images by reason, the most frequent one first; of many, some examples of each reason."""
    by_reason: dict[str, list[str]] = {}
    for image in unreadable:
        by_reason.setdefault(image.reason, []).append(image.source)
    reasons = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    n_examples = max(_MIN_EXAMPLES, _MAX_LISTED_PROBLEMS // len(reasons))
    lines: list[str] = []
    for reason, places in reasons[:_MAX_LISTED_REASONS]:
        lines += [f"  {place}: {reason}" for place in places[:n_examples]]
        if len(places) > n_examples:
            lines.append(f"  and {len(places) - n_examples:,} more: {reason}")
    if rest := sum(len(places) for _, places in reasons[_MAX_LISTED_REASONS:]):
        lines.append(f"  and {rest:,} more for other reasons")
    return "\n".join(lines)


def _check_unreadable(unreadable: list[UnreadableImage], n: int, allowed: float) -> None:
    if not unreadable:
        return
    listing = _list_problems(unreadable)
    share = len(unreadable) / n
    if share > allowed or len(unreadable) == n:
        raise DataError(
            f"{len(unreadable)} of {n} images ({format_beside_limit(share, allowed)}) cannot be "
            f"read, allowed are {format_share(allowed)} (data.max_unreadable_share):\n{listing}\n"
            "Repair or remove them, or allow a larger share."
        )
    _log.info(f"{len(unreadable)} of {n} images cannot be read and are left out:\n{listing}")
