"""Answers encoded images: decode, wait for a place in a batch, run the graph, postprocess.

Knows no HTTP, so that another protocol can stand beside it. An image that cannot be read is refused
before it meets anyone else's.
"""

import asyncio
import random
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cv_factory.cpu import available_cpus
from cv_factory.data.decode import decode, read_header
from cv_factory.errors import ConfigError, ImageError
from cv_factory.serving.batcher import MicroBatcher
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.postprocessors import PostprocessedPrediction, build_postprocessor

Pixels = npt.NDArray[np.uint8]
#: Probabilities float32 ``(K,)`` and features float32 ``(k,)`` of one image.
Scores = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

#: Larger images (bytes encoded, pixels) are decoded in a thread, so that the others need not wait.
_SMALL_BYTES, _SMALL_PIXELS = 64 * 2**10, 2**18
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class ScoredImage:
    """One prediction: its id, what is answered, the scores behind it, and if it is an old one."""

    id: str
    answer: PostprocessedPrediction
    scores: Scores
    cached: bool = False


class InferenceEngine:
    """A bundle's predictor, ready to answer."""

    def __init__(self, bundle: Bundle, on_batch: Callable[[int], None] | None = None) -> None:
        """Build the graph and answer the golden samples once.

        Args:
            bundle: What answers.
            on_batch: Told how many images each run of the graph has; called in its thread.

        Raises:
            ArtifactError: The golden samples are not answered as they were at export.
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
        settings = bundle.serving.postprocessor
        try:
            self._postprocess = build_postprocessor(
                settings.name, settings.settings, bundle.predictor.contract.class_names
            )
        except ValueError as error:
            raise ConfigError(f"postprocessor.settings: {error}.") from None
        self._aside = 0
        self._queue_size = batching.queue_size
        self._batcher: MicroBatcher[Pixels, Scores] = MicroBatcher(
            self._run,
            max_batch=batching.max_batch,
            queue_size=batching.queue_size,
            threads=runs,
        )
        self._decoders = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self.prove()

    def prove(self) -> None:
        """Answer the golden samples.

        Raises:
            ArtifactError: An answer differs from what it was at export.
        """
        golden = self._predictor.golden
        golden.check(self._predictor.predict(golden.images).probabilities, self._name)

    def read(self, content: bytes) -> Pixels:
        """Decode one image as ingestion does.

        Raises:
            ImageError: It cannot be read, or is refused; the message is the reason.
        """
        contract, limits = self._predictor.contract, self._limits
        return decode(
            content,
            height=contract.height,
            width=contract.width,
            channels=contract.channels,
            max_pixels=limits.max_pixels,
            max_aspect_ratio=limits.max_aspect_ratio,
        ).pixels

    async def read_aside(self, content: bytes) -> Pixels:
        """Decode one image without keeping others from being served; see ``read``."""
        if _is_small(content):
            return self.read(content)
        loop = asyncio.get_running_loop()
        self._aside += 1
        try:
            return await loop.run_in_executor(self._decoders, self.read, content)
        finally:
            self._aside -= 1

    @property
    def waiting(self) -> int:
        """How many images wait for the graph, or to be decoded aside."""
        return len(self._batcher) + self._aside

    def has_room(self) -> bool:
        """Whether another image may come."""
        return self.waiting < self._queue_size

    async def score(self, images: Sequence[Pixels]) -> list[ScoredImage]:
        """Predict decoded images.

        Raises:
            QueueFullError: Too much waits already.
        """
        scores = await self._batcher(images)
        return [ScoredImage(self._new_id(), self._postprocess(s[0]), s) for s in scores]

    def close(self) -> None:
        """Let the threads end."""
        self._batcher.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _new_id(self) -> str:
        # Not a secret: the operating system need not be asked for each.
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _run(self, images: Sequence[Pixels]) -> list[Scores]:
        if self._on_batch is not None:
            self._on_batch(len(images))
        predicted = self._predictor.predict(np.stack(images))
        return list(zip(predicted.probabilities, predicted.features, strict=True))


def _is_small(content: bytes) -> bool:
    """Whether an image is decoded in no time, as far as its header says."""
    if len(content) > _SMALL_BYTES:
        return False
    if content.startswith(_PNG):
        width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
        return width * height <= _SMALL_PIXELS
    try:
        header = read_header(content)
    except ImageError:
        return True
    return header.width * header.height <= _SMALL_PIXELS
