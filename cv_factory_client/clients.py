"""The clients: one for synchronous and one for asynchronous programs, alike in everything else."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from cv_factory_client.addresses import hide_password
from cv_factory_client.batches import Batch, split_batches
from cv_factory_client.calls import Call, Calls
from cv_factory_client.errors import ClientConfigError, ServiceError
from cv_factory_client.results import ImagePrediction, Label, ModelInfo
from cv_factory_client.retries import RetryPolicy, RetryState

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


class PredictionClient:
    """Client of one service; use it in a ``with`` block, or ``close`` it. Threads may share it."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: RetryPolicy | None = None,
        ca: Path | None = None,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        """Create the client without sending anything.

        Args:
            url: URL of the service, such as ``http://127.0.0.1:3000``, ``https://``, ``grpc://``
                or, with TLS, ``grpcs://``.
            api_key: API key or token, if the service requires one.
            timeout: Seconds after which an attempt fails; over HTTP, seconds without progress.
            retries: Limits of the retries; by default up to three.
            ca: PEM file of the CA that signed the service's certificate, if no known one did.
            transport: Replacement of the network under HTTP, for tests.

        Raises:
            ClientConfigError: The URL is malformed, the key or the CA certificate cannot be used,
                or the environment's proxy.
        """
        self._calls = _open_calls(url, api_key, timeout, ca, transport, is_async=False)
        self._retries = retries or RetryPolicy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()

    def predict(self, image: bytes) -> ImagePrediction:
        """Predict one encoded image.

        Raises:
            ServiceError: The service cannot be reached, or rejects the image.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[bytes]) -> list[ImagePrediction]:
        """Predict several encoded images in one request, in their order.

        Raises:
            ServiceError: The service cannot be reached, or rejects the images.
        """
        return self._call(self._calls.predict(images)) if images else []

    def predict_many(
        self,
        images: Iterable[bytes],
        *,
        batch_size: int = 8,
        batch_bytes: int = 8 * 1024**2,
        n_concurrent: int = 2,
    ) -> Iterator[ImagePrediction]:
        """Predict any number of encoded images in batches, and yield their predictions in order.

        Args:
            images: Read as the predictions are consumed.
            batch_size: Most images of a request.
            batch_bytes: Most bytes of a request that holds several images.
            n_concurrent: Requests at a time.

        Raises:
            ServiceError: The service cannot be reached, or rejects a batch, which is named.
        """
        pending: deque[Future[list[ImagePrediction]]] = deque()
        pool = ThreadPoolExecutor(n_concurrent)
        try:
            for batch in split_batches(images, batch_size, batch_bytes):
                pending.append(pool.submit(self._predict_numbered, batch))
                if len(pending) >= n_concurrent:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def feedback(self, labels: Sequence[Label]) -> int:
        """Give the true classes of images that were predicted before; return how many were stored.

        All of a call are stored or none. Giving them twice has no effect: the last label counts.

        Raises:
            ServiceError: The service cannot be reached, or rejects the labels.
            ClientConfigError: The client uses gRPC.
        """
        return self._call(self._calls.feedback(labels), is_idempotent=True) if labels else 0

    def model_info(self) -> ModelInfo:
        """Return the description of the served model.

        Raises:
            ServiceError: The service cannot be reached, or refuses.
        """
        return self._call(self._calls.model_info(), is_idempotent=True)

    def is_ready(self) -> bool:
        """Whether the service can be reached and its golden samples are verified; no retries."""
        call = self._calls.is_ready()
        try:
            return call.parse(call.send())
        except self._calls.errors:
            return False

    def _predict_numbered(self, batch: Batch) -> list[ImagePrediction]:
        with batch.name_in_errors():
            return self.predict_batch(batch.images)

    def _call(self, call: Call[T], *, is_idempotent: bool = False) -> T:
        retries = RetryState(self._retries)
        while True:
            try:
                return call.parse(call.send())
            except self._calls.errors as error:
                failure = self._calls.translate(error, is_idempotent=is_idempotent)
            except ServiceError as error:
                failure = error
            time.sleep(retries.next_wait_s(failure))


class AsyncPredictionClient:
    """Asynchronous client of one service; use it in an ``async with`` block, or ``close`` it."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: RetryPolicy | None = None,
        ca: Path | None = None,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        """Create the client without sending anything; see ``PredictionClient``."""
        self._calls = _open_calls(url, api_key, timeout, ca, transport, is_async=True)
        self._retries = retries or RetryPolicy()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._calls.close()

    async def predict(self, image: bytes) -> ImagePrediction:
        """Predict one encoded image; see ``PredictionClient.predict``."""
        return (await self.predict_batch([image]))[0]

    async def predict_batch(self, images: Sequence[bytes]) -> list[ImagePrediction]:
        """Predict several encoded images; see ``PredictionClient.predict_batch``."""
        return await self._call(self._calls.predict(images)) if images else []

    async def predict_many(
        self,
        images: Iterable[bytes],
        *,
        batch_size: int = 8,
        batch_bytes: int = 8 * 1024**2,
        n_concurrent: int = 2,
    ) -> AsyncIterator[ImagePrediction]:
        """Predict any number of encoded images; see ``PredictionClient.predict_many``."""
        pending: deque[asyncio.Task[list[ImagePrediction]]] = deque()
        try:
            for batch in split_batches(images, batch_size, batch_bytes):
                pending.append(asyncio.create_task(self._predict_numbered(batch)))
                if len(pending) >= n_concurrent:
                    for prediction in await pending.popleft():
                        yield prediction
            while pending:
                for prediction in await pending.popleft():
                    yield prediction
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def feedback(self, labels: Sequence[Label]) -> int:
        """Give the true classes of images; see ``PredictionClient.feedback``."""
        return await self._call(self._calls.feedback(labels), is_idempotent=True) if labels else 0

    async def model_info(self) -> ModelInfo:
        """Return the description of the served model; see ``PredictionClient.model_info``."""
        return await self._call(self._calls.model_info(), is_idempotent=True)

    async def is_ready(self) -> bool:
        """Whether the service can be reached and its golden samples are verified; no retries."""
        call = self._calls.is_ready()
        try:
            return call.parse(await call.send())
        except self._calls.errors:
            return False

    async def _predict_numbered(self, batch: Batch) -> list[ImagePrediction]:
        with batch.name_in_errors():
            return await self.predict_batch(batch.images)

    async def _call(self, call: Call[T], *, is_idempotent: bool = False) -> T:
        retries = RetryState(self._retries)
        while True:
            try:
                return call.parse(await call.send())
            except self._calls.errors as error:
                failure = self._calls.translate(error, is_idempotent=is_idempotent)
            except ServiceError as error:
                failure = error
            await asyncio.sleep(retries.next_wait_s(failure))


def _open_calls(
    url: str,
    api_key: str | None,
    timeout: float,
    ca: Path | None,
    transport: "httpx.BaseTransport | httpx.AsyncBaseTransport | None",
    *,
    is_async: bool,
) -> Calls:
    """Return the calls of the URL's protocol, whose package is imported where it is used.

    Raises:
        ClientConfigError: See ``PredictionClient``.
    """
    if ca is not None and not url.lower().startswith(("https://", "grpcs://")):
        raise ClientConfigError(
            f"{hide_password(url)} does not take a CA certificate: with one, the URL begins with "
            "https:// or grpcs://."
        )
    if transport is None and url.lower().startswith(("grpc://", "grpcs://")):
        try:
            from cv_factory_client.grpc_calls import GrpcCalls
        except ImportError as error:
            raise ClientConfigError(
                f"{error.name} is not installed, which grpc:// needs: install the client as "
                "cv-factory-client[grpc]."
            ) from None
        return GrpcCalls(url, api_key, timeout, ca, is_async=is_async)
    from cv_factory_client.http_calls import HttpCalls

    return HttpCalls(url, api_key, timeout, ca, is_async=is_async, transport=transport)
