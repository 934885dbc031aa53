"""Inference engine of a bundle: decode, micro-batch, run the graph, postprocess.

It knows no HTTP, so other protocols can use it. An image that cannot be decoded is rejected before
it is batched with those of other requests.
"""

import asyncio
import hashlib
import random
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cv_factory.config.serving import LimitsConfig
from cv_factory.cpu import available_cpus
from cv_factory.data.decode import DecodedImage, decode, read_header
from cv_factory.errors import ConfigError, ImageError
from cv_factory.inference.predictor import Contract, ImageScores
from cv_factory.serving.batcher import MicroBatcher
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.logging.image_facts import LoggedImage
from cv_factory.serving.postprocessors import (
    PostprocessedPrediction,
    build_image_postprocessor,
    prediction_fields,
)

Pixels = npt.NDArray[np.uint8]

#: Larger images (encoded bytes, pixels) are decoded in a thread so as not to block the event loop.
_MAX_INLINE_BYTES, _MAX_INLINE_PIXELS = 64 * 2**10, 2**18
#: A lone image whose run of the graph takes longer does not block the event loop either.
_MAX_INLINE_RUN_S = 0.001
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class ScoredImage:
    """One prediction: id, postprocessed output, the scores behind it, and if it was cached.

    ``image`` is for the prediction log; None where there is none.
    """

    id: str
    output: PostprocessedPrediction
    scores: ImageScores
    is_cached: bool = False
    image: LoggedImage | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as it stands in an answer."""
        return {"id": self.id, **prediction_fields(self.output, self.scores)}


class InferenceEngine:
    """Predictor of a bundle with its batching queue and decoding thread."""

    def __init__(self, bundle: Bundle, on_batch: Callable[[int], None] | None = None) -> None:
        """Build the graph and verify the golden samples.

        Args:
            bundle: The predictor and its serving configuration.
            on_batch: Called with the number of images of each run of the graph, in its thread.

        Raises:
            ArtifactError: The golden samples differ from their values at export.
            ConfigError: The postprocessor's settings do not fit the predictor's classes.
        """
        batching = bundle.serving.batching
        threads = batching.threads or available_cpus()
        runs = min(batching.runs or threads, threads)
        self._predictor = replace(bundle.predictor, threads=threads // runs)
        self._name = f"{bundle.model_name} version {bundle.version}"
        self._on_batch = on_batch
        self._random = random.Random()
        self._limits = bundle.serving.limits
        try:
            self._postprocess = build_image_postprocessor(
                bundle.serving.postprocessor, bundle.predictor.contract
            )
        except ValueError as error:
            raise ConfigError(f"postprocessor: {error}.") from None
        self._golden_digests = {_digest(image) for image in self._predictor.golden.images}
        self._n_decoding = 0
        self._queue_size = batching.queue_size
        self._batcher: MicroBatcher[Pixels, ImageScores] = MicroBatcher(
            self._run,
            max_batch=batching.max_batch,
            queue_size=batching.queue_size,
            threads=runs,
            max_inline_s=_MAX_INLINE_RUN_S,
        )
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self.verify_golden_samples()

    def verify_golden_samples(self) -> None:
        """Predict the golden samples and compare them with their values at export.

        Raises:
            ArtifactError: They differ.
        """
        golden = self._predictor.golden
        golden.verify(self._predictor.predict(golden.images), self._name)

    async def are_golden_samples(self, images: Sequence[bytes | Pixels]) -> bool:
        """Whether images, encoded so that they can be decoded or not, are golden samples."""
        for image in images:
            if isinstance(image, bytes):
                pixels = (await self.decode_in_executor(image)).pixels
            else:
                pixels = image
            if _digest(pixels) not in self._golden_digests:
                return False
        return True

    def decode(self, image: bytes) -> Pixels:
        """Decode one image; see ``decode_input``.

        Raises:
            ImageError: The image cannot be decoded, or exceeds the limits; the message says why.
        """
        return self._decode(image).pixels

    def _decode(self, image: bytes) -> DecodedImage:
        return decode_input(image, self._predictor.contract, self._limits)

    async def decode_in_executor(self, image: bytes) -> DecodedImage:
        """Decode one image; a large one in a thread, so as not to block the event loop.

        Raises:
            ImageError: See ``decode``.
        """
        if _is_small(image):
            return self._decode(image)
        loop = asyncio.get_running_loop()
        self._n_decoding += 1
        try:
            return await loop.run_in_executor(self._decoder, self._decode, image)
        finally:
            self._n_decoding -= 1

    @property
    def queue_length(self) -> int:
        """Number of images that wait for the graph or are decoded in the thread."""
        return len(self._batcher) + self._n_decoding

    def has_capacity(self) -> bool:
        """Whether the queue takes another image."""
        return self.queue_length < self._queue_size

    async def predict(
        self, images: Sequence[Pixels], logged: Sequence[LoggedImage | None] | None = None
    ) -> list[ScoredImage]:
        """Predict decoded images.

        Args:
            images: The predictor's input, each uint8 ``(H, W, C)``.
            logged: What the prediction log is to hold of each; None for nothing.

        Raises:
            QueueFullError: They do not fit into the queue.
        """
        scores = await self._batcher(images)
        return [
            ScoredImage(self._new_id(), self._postprocess(s), s, image=image)
            for s, image in zip(scores, logged or [None] * len(images), strict=True)
        ]

    def close(self) -> None:
        """Stop the threads."""
        self._batcher.close()
        self._decoder.shutdown(wait=False, cancel_futures=True)

    def _new_id(self) -> str:
        # An id is no secret, so it does not need a system call for randomness.
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _run(self, images: Sequence[Pixels]) -> list[ImageScores]:
        if self._on_batch is not None:
            self._on_batch(len(images))
        return self._predictor.predict(np.stack(images)).rows()


def decode_input(image: bytes, contract: Contract, limits: LimitsConfig) -> DecodedImage:
    """Decode an image to a predictor's input, with ingestion's decoder.

    Raises:
        ImageError: It cannot be decoded, or exceeds the limits; the message says why.
    """
    return decode(
        image,
        height=contract.height,
        width=contract.width,
        channels=contract.channels,
        max_pixels=limits.max_pixels,
        max_aspect_ratio=limits.max_aspect_ratio,
        value_range=contract.value_range,
    )


def _digest(pixels: Pixels) -> bytes:
    return hashlib.sha256(pixels.tobytes()).digest()


def _is_small(image: bytes) -> bool:
    """Whether an encoded image decodes fast, judged by its size and header."""
    if len(image) > _MAX_INLINE_BYTES:
        return False
    if image.startswith(_PNG_SIGNATURE):
        width, height = int.from_bytes(image[16:20]), int.from_bytes(image[20:24])
        return width * height <= _MAX_INLINE_PIXELS
    try:
        header = read_header(image)
    except ImageError:
        return True
    return header.width * header.height <= _MAX_INLINE_PIXELS
