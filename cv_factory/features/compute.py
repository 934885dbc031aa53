"""Features of all images of a dataset, by ONNX Runtime, batch by batch."""

import logging
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cv_factory.artifacts.arrays import load_array
from cv_factory.artifacts.npy_stream import NpyStreamWriter
from cv_factory.artifacts.onnx_session import open_session
from cv_factory.cpu import fitting_threads
from cv_factory.data.dataset import ImageDataset
from cv_factory.features.backbone import Backbone
from cv_factory.features.graph import features_graph
from cv_factory.features.image_features import ImageFeatures
from cv_factory.progress import track

_log = logging.getLogger(__name__)

#: Few, so that the layers' outputs stay in the processor's cache.
_BATCH = 8

_Features = npt.NDArray[np.float32]
_Images = npt.NDArray[np.uint8]


def compute_features(
    dataset: ImageDataset, backbone: Backbone, *, horizontal_flip: bool
) -> ImageFeatures:
    """Compute the features of all images, and of their mirror images where asked for.

    They are written to a temporary file as they come, so that neither images nor features need
    to fit into memory. The values depend on neither the number of threads nor the order.

    Args:
        dataset: Its images may be memory-mapped.
        backbone: From ``export_backbone``.
        horizontal_flip: Whether to compute those of the mirrored images as well.

    Raises:
        ExportError: The images are neither gray nor RGB.
    """
    return ImageFeatures(
        backbone=backbone,
        image_shape=dataset.image_shape,
        dataset_fingerprint=dataset.content_hash,
        values=_compute(dataset.images, backbone, "Computing features"),
        mirrored=(
            _compute(dataset.images[:, :, ::-1], backbone, "Computing features of mirrored images")
            if horizontal_flip
            else None
        ),
    )


def _compute(images: _Images, backbone: Backbone, description: str) -> _Features:
    """Return features float32 ``(N, F)``, memory-mapped from a file that has no name any more."""
    height, width, channels = images.shape[1:]
    graph = features_graph((height, width, channels), backbone).SerializeToString()
    # One thread a run, and a run on each CPU: nothing waits for the slowest part of each layer.
    session = open_session(graph, threads=1)

    def run(start: int) -> _Features:
        batch = np.ascontiguousarray(images[start : start + _BATCH])
        features: _Features = session.run(["backbone_features"], {"images": batch})[0]
        return features

    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cv-factory-") as directory:
        path = Path(directory, "features.npy")
        with NpyStreamWriter(path, (backbone.n_features,), np.float32) as writer:
            for row in track(_rows(run, len(images)), description, len(images)):
                writer.append(row)
        values: _Features = load_array(path, mmap=True)
    rate = len(images) / max(time.monotonic() - begin, 1e-9)
    _log.info("%s: %s images/s of %dx%d.", backbone.name, f"{rate:,.0f}", height, width)
    return values


def _rows(run: Callable[[int], _Features], n_images: int) -> Iterator[_Features]:
    """Yield ``(1, F)`` for each image, in order; a few batches are computed ahead."""
    threads = fitting_threads()
    pending: deque[Future[_Features]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, n_images, _BATCH):
            pending.append(pool.submit(run, start))
            if len(pending) > 2 * threads:
                yield from _split(pending.popleft().result())
        while pending:
            yield from _split(pending.popleft().result())


def _split(features: _Features) -> Iterator[_Features]:
    return (features[row : row + 1] for row in range(len(features)))
