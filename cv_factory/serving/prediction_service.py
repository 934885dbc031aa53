"""The predictor call behind every protocol: access, capacity, rates, cache, engine, records.

It knows no protocol: those of HTTP, gRPC and WebSocket name the caller, hand over the images, and
translate the ``ProblemError`` of a rejected request.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from cv_factory.data.decode import DecodedImage, ImageHeader
from cv_factory.errors import ArtifactError, ImageError
from cv_factory.serving.auth.access import AccessControl
from cv_factory.serving.auth.principal import Principal
from cv_factory.serving.batcher import QueueFullError
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.inference_engine import InferenceEngine, Pixels, ScoredImage
from cv_factory.serving.logging.image_facts import LoggedImage
from cv_factory.serving.logging.json_lines import log_event
from cv_factory.serving.logging.prediction_log import PredictionLog
from cv_factory.serving.problem_details import ProblemError, overloaded_error
from cv_factory.serving.prometheus_metrics import ServiceMetrics
from cv_factory.serving.request_log import VERIFICATION_REQUEST_ID, RequestContext
from cv_factory.serving.response_cache import ResponseCache
from cv_factory.serving.service_environment import ServiceState

#: Encoded bytes, or decoded pixels, uint8 ``(H, W, C)`` of the predictor's input.
InputImage = bytes | Pixels
ReadImages = Callable[[], Awaitable[Sequence[InputImage]]]
_REJECTION_DELAY_S = 0.2
#: Seconds after which a request with many small images lets others use the event loop.
_MAX_BLOCK_S = 0.005
#: Kind of the problem that an image cannot be decoded, or is none of the model's inputs.
_IMAGE_PROBLEM = "image"


@dataclass(frozen=True, slots=True)
class Caller:
    """Sender of a request.

    Attributes:
        address: IP address; None if unknown.
        credential: API key or token; None if none was sent.
    """

    address: str | None
    credential: str | None


class PredictionService:
    """Predictions of one bundle; call ``close`` when it is no longer needed."""

    def __init__(
        self,
        bundle: Bundle,
        access: AccessControl,
        metrics: ServiceMetrics,
        state: ServiceState,
        *,
        is_restart: bool = False,
    ) -> None:
        """Build the graph, verify the golden samples and open the prediction log.

        Args:
            bundle: The predictor and its serving configuration.
            access: Authenticates callers and enforces their rates.
            metrics: Counters of predictions, batches and cache lookups.
            state: The arm of the service, which the prediction log names.
            is_restart: Whether this process replaces one that has served: then the prediction
                log's folder may be missing for a while.

        Raises:
            ArtifactError: The predictor's golden samples differ from their values at export.
            ConfigError: The prediction log's folder cannot be created, or the postprocessor does
                not fit the predictor.
        """
        self._limits = bundle.serving.limits
        self._input_shape = bundle.predictor.contract.input_shape
        self._access = access
        self._metrics = metrics
        self._n_active = 0
        self._n_delayed_rejections = 0
        self._engine = InferenceEngine(bundle, on_batch=metrics.observe_batch)
        self.cache = ResponseCache(bundle, on_lookup=metrics.count_cache_lookup)
        self._state = state
        self._readiness: asyncio.Task[bool] | None = None
        self._log = PredictionLog.open(bundle, metrics.count_dropped, is_restart=is_restart)
        self._keeps_images = bundle.serving.log.images is not None

    @property
    def queue_length(self) -> int:
        """Number of images that wait for the graph or are decoded."""
        return self._engine.queue_length

    async def is_ready(self) -> bool:
        """Whether the golden samples are predicted as at export; logs why not.

        Anybody may ask, so that calls at the same time share one run of the graph.
        """
        if self._readiness is None or self._readiness.done():
            self._readiness = asyncio.create_task(asyncio.to_thread(self._verify_golden_samples))
        return await asyncio.shield(self._readiness)

    def _verify_golden_samples(self) -> bool:
        try:
            self._engine.verify_golden_samples()
        except ArtifactError as error:
            log_event("not-ready", logging.ERROR, detail=str(error))
            return False
        return True

    def close(self) -> None:
        """Flush the log and stop the threads."""
        self._engine.close()
        if self._log is not None:
            self._log.close()

    async def predict(
        self,
        caller: Caller,
        read_images: ReadImages,
        context: RequestContext,
        *,
        may_use_cache: bool = True,
    ) -> list[ScoredImage]:
        """Predict the images of a request.

        Args:
            caller: Who sends it.
            read_images: Returns its images, at least one; called once it is admitted.
            context: Facts for the log, which are filled in.
            may_use_cache: Whether cached predictions may be returned.

        Raises:
            ProblemError: The caller is unknown or exceeds a rate, the service is overloaded, or an
                image cannot be used; or what ``read_images`` raises.
        """
        self._access.check_address_rate_limit(caller.address)
        principal = await self._access.identify(caller.credential, "predict")
        context.principal_name = principal.name
        results = None
        if self._engine.has_capacity() and self._n_active < self._limits.max_requests:
            with suppress(QueueFullError, TimeoutError), self._log_refused(principal, context):
                results = await self._handle_admitted(
                    principal, read_images, context, may_use_cache
                )
        if results is None:
            # By now the request holds neither its images nor one of the ``max_requests``.
            raise await self._delay_rejection()
        if not context.is_verification:
            self._record(results, principal, context.request_id)
        return results

    async def _handle_admitted(
        self,
        principal: Principal,
        read_images: ReadImages,
        context: RequestContext,
        may_use_cache: bool,
    ) -> list[ScoredImage]:
        """Read a request's images and predict them.

        Raises:
            QueueFullError: The images do not fit into the queue.
            TimeoutError: They waited longer than ``limits.answer_seconds``.
        """
        self._n_active += 1
        try:
            images = await read_images()
            context.n_images = len(images)
            self._access.check_rate_limit(principal, len(images))
            results = await self.cache.get_or_compute(images, self._compute, may_use_cache)
            # Last: any client may send this id, also with images that cannot be decoded.
            context.is_verification = (
                context.request_id == VERIFICATION_REQUEST_ID
                and await self._engine.are_golden_samples(images)
            )
            return results
        finally:
            self._n_active -= 1

    async def _compute(self, images: Sequence[InputImage]) -> list[ScoredImage]:
        async with asyncio.timeout(self._limits.answer_seconds):
            decoded = await self._decode(images)
            logged = None if self._log is None else list(map(self._describe, images, decoded))
            return await self._engine.predict([image.pixels for image in decoded], logged)

    def _describe(self, image: InputImage, decoded: DecodedImage) -> LoggedImage:
        content = image if isinstance(image, bytes) and self._keeps_images else None
        header = decoded.header
        return LoggedImage(header.width, header.height, decoded.pixels, content)

    async def _decode(self, images: Sequence[InputImage]) -> list[DecodedImage]:
        decoded = []
        block_end = time.perf_counter() + _MAX_BLOCK_S
        for position, image in enumerate(images):
            if time.perf_counter() >= block_end:
                await asyncio.sleep(0)
                block_end = time.perf_counter() + _MAX_BLOCK_S
            if not isinstance(image, bytes):
                decoded.append(self._check_pixels(image, position))
                continue
            try:
                decoded.append(await self._engine.decode_in_executor(image))
            except ImageError as error:
                subject = "the image" if len(images) == 1 else f"image {position}"
                raise _refused_image(f"{subject} cannot be used: {error}") from None
        return decoded

    def _check_pixels(self, pixels: Pixels, position: int) -> DecodedImage:
        if pixels.shape != self._input_shape:
            raise _refused_image(
                f"image {position} cannot be used: its pixels have shape {pixels.shape}, and the "
                f"model takes {self._input_shape} (height, width, channels)",
            )
        return DecodedImage(pixels, ImageHeader(pixels.shape[1], pixels.shape[0], "pixels"))

    def _record(self, results: list[ScoredImage], principal: Principal, request_id: str) -> None:
        for result in results:
            self._metrics.count_prediction(result.output.label, result.scores.is_unfamiliar)
            if self._log is not None:
                self._log.put(result, principal.name, request_id, self._state.arm)

    @contextmanager
    def _log_refused(self, principal: Principal, context: RequestContext) -> Iterator[None]:
        """Log that an image could not be used, where that is raised in the block."""
        try:
            yield
        except ProblemError as problem:
            if problem.kind == _IMAGE_PROBLEM and self._log is not None:
                self._log.put_refused(principal.name, context.request_id, self._state.arm)
            raise

    async def _delay_rejection(self) -> ProblemError:
        """Return the 503 for an overloaded service after a short delay.

        Instant retries would take CPU from admitted requests, and uvloop accepts one connection an
        iteration, so new connections would wait for seconds. Each delayed rejection holds a
        connection, so no more than ``limits.max_requests`` are delayed at a time.
        """
        if self._n_delayed_rejections < self._limits.max_requests:
            self._n_delayed_rejections += 1
            try:
                await asyncio.sleep(_REJECTION_DELAY_S)
            finally:
                self._n_delayed_rejections -= 1
        return overloaded_error()


def _refused_image(detail: str) -> ProblemError:
    return ProblemError(422, _IMAGE_PROBLEM, detail)
