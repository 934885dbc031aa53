"""Middleware of every HTTP request: request id, request log, metrics, headers, unread bodies."""

import asyncio
import random
import re
import time
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cv_factory.serving.logging.json_lines import AsyncLineWriter, timestamp
from cv_factory.serving.prometheus_metrics import ServiceMetrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
#: ``X-Request-ID`` of golden samples that verify a service; they are neither logged nor counted as
#: predictions.
VERIFICATION_REQUEST_ID = "golden-samples"
_BODY_HEADERS = (b"content-length", b"transfer-encoding")
_NOSNIFF = (b"x-content-type-options", b"nosniff")


@dataclass
class RequestContext:
    """Facts about one request that handlers fill in for its log line; none of its content.

    Attributes:
        is_verification: Whether its images are golden samples that verify the service.
        seconds: Duration until the response was sent; None until then.
    """

    request_id: str
    principal_name: str | None = None
    n_images: int = 0
    problem: str | None = None
    status: int = 0
    is_verification: bool = False
    seconds: float | None = None


def get_request_context(scope: MutableMapping[str, Any]) -> RequestContext:
    """Return the context that ``RequestMiddleware`` put into an ASGI scope."""
    context: RequestContext = scope["request_context"]
    return context


class _RequestBody:
    """ASGI ``receive`` that knows whether the whole body has been read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_complete = False

    async def receive(self) -> Message:
        """Return the next message."""
        message = await self._receive()
        self.is_complete = not message.get("more_body", False)
        return message

    async def discard(self, seconds: float) -> None:
        """Read the rest for up to some seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.is_complete:
                    await self.receive()


class RequestMiddleware:
    """ASGI middleware that identifies, logs and counts requests, and reads bodies to their end.

    A response that is sent before the body is complete, such as a 401 or 413, would often be lost:
    closing a connection with unread bytes resets it, and many clients read only after they sent.
    """

    def __init__(
        self,
        app: ASGIApp,
        paths: frozenset[str],
        metrics: ServiceMetrics,
        log: AsyncLineWriter | None,
        body_seconds: float,
    ) -> None:
        """Wrap an application.

        Args:
            app: The application that handles the requests.
            paths: Paths with a metrics label of their own; all others are labeled ``other``.
            metrics: Counters of requests and problems.
            log: Writer of the request log; None to write none.
            body_seconds: Seconds after a request's start in which the rest of its body is read.
        """
        self._app = app
        self._paths = paths
        self._metrics = metrics
        self._log = log
        self._body_seconds = body_seconds
        self._random = random.Random()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection; lifespan events pass through unchanged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = _client_request_id(scope) or f"{self._random.getrandbits(128):032x}"
        context = scope["request_context"] = RequestContext(request_id)
        body = _RequestBody(receive)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                id_header = (b"x-request-id", context.request_id.encode())
                message["headers"] = [*message.get("headers", ()), id_header, _NOSNIFF]
            elif not message.get("more_body", False):
                context.seconds = time.perf_counter() - start
                if not body.is_complete and _has_body(scope):
                    await send({**message, "more_body": True})
                    await body.discard(max(0.0, self._body_seconds - context.seconds))
                    message = {"type": "http.response.body"}
            await send(message)

        try:
            await self._app(scope, body.receive, send_with_headers)
        finally:
            self._record(scope, context, context.seconds or time.perf_counter() - start)

    def _record(self, scope: Scope, context: RequestContext, seconds: float) -> None:
        path = scope["path"]
        route = path if path in self._paths else "other"
        self._metrics.observe_request(route, context.status, seconds)
        if context.problem is not None:
            self._metrics.count_problem(context.problem)
        if self._log is not None:
            client = scope.get("client")
            self._log.put(
                {
                    "time": timestamp(),
                    "event": "request",
                    "request_id": context.request_id,
                    "method": scope["method"],
                    "path": path[:200],
                    "status": context.status,
                    "milliseconds": round(1000 * seconds, 3),
                    "key": context.principal_name,
                    "address": client[0] if client else None,
                    "images": context.n_images,
                    "problem": context.problem,
                }
            )


def _has_body(scope: Scope) -> bool:
    """Whether the head of a request announces a body (RFC 9112, 6.3)."""
    return any(name in _BODY_HEADERS for name, _ in scope["headers"])


def _client_request_id(scope: Scope) -> str | None:
    """Return the header ``X-Request-ID`` if it is safe to log."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return None
