"""Middleware of requests and WebSocket handshakes: id, log, metrics, headers, rest of a body."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cv_factory.serving.request_log import RequestContext, RequestLog, make_request_id

RequestHandler = Callable[[Request], Awaitable[Response]]
_BODY_HEADERS = (b"content-length", b"transfer-encoding")
#: An answer waits for the rest of a body while parts of it come in shorter intervals.
_IDLE_SECONDS = 1.0
_NOSNIFF = (b"x-content-type-options", b"nosniff")


def get_request_context(scope: MutableMapping[str, Any]) -> RequestContext:
    """Return the context that ``RequestMiddleware`` put into an ASGI scope."""
    context: RequestContext = scope["request_context"]
    return context


class _RequestBody:
    """ASGI ``receive`` that knows whether the whole body has been read."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._is_complete = False

    @property
    def is_unread(self) -> bool:
        """Whether the head announced a body of which a part has not been read."""
        return not self._is_complete and _has_body(self._scope)

    async def receive(self) -> Message:
        """Return the next message."""
        message = await self._receive()
        self._is_complete = not message.get("more_body", False)
        return message

    async def discard(self, seconds: float, idle_seconds: float = math.inf) -> None:
        """Read the rest for up to some seconds, and only while parts of it come often enough."""
        deadline = time.perf_counter() + seconds
        with suppress(TimeoutError):
            while not self._is_complete:
                async with asyncio.timeout(min(idle_seconds, deadline - time.perf_counter())):
                    await self.receive()


class RequestMiddleware:
    """ASGI middleware that identifies, logs and counts requests, and reads bodies to their end.

    A response that is sent before the body is complete, such as a 401 or 413, would often be lost:
    closing a connection with unread bytes resets it, as proxies do that have such a response, and
    many clients read only after they sent.
    """

    def __init__(
        self,
        app: ASGIApp,
        labels: Mapping[str, str],
        log: RequestLog,
        body_seconds: float,
    ) -> None:
        """Wrap an application.

        Args:
            app: The application that handles the requests.
            labels: Labels of paths in metrics; all other paths are labeled ``other``.
            log: Records the requests.
            body_seconds: Seconds after a request's start in which the rest of its body is read.
        """
        self._app = app
        self._labels = labels
        self._log = log
        self._body_seconds = body_seconds
        self._random = random.Random()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection; lifespan events pass through unchanged."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = make_request_id(_client_request_id(scope), self._random)
        context = scope["request_context"] = RequestContext(request_id)
        if scope["type"] == "websocket":
            await self._app(scope, receive, self._record_handshake(scope, send, start))
            return
        body = _RequestBody(scope, receive)
        head: Message = {}

        async def send_with_headers(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                context.status = message["status"]
                _add_headers(message, context)
                head = message
                return
            is_last = not message.get("more_body", False)
            if is_last:
                context.seconds = time.perf_counter() - start
                if body.is_unread and not _awaits_continue(scope):
                    await body.discard(self._body_seconds - context.seconds, _IDLE_SECONDS)
            if head:
                head, sent = {}, head
                await send(sent)
            if is_last and body.is_unread:
                await send({**message, "more_body": True})
                await body.discard(self._body_seconds - (time.perf_counter() - start))
                message = {"type": "http.response.body"}
            await send(message)

        try:
            await self._app(scope, body.receive, send_with_headers)
        finally:
            self._record(scope, context, context.seconds or time.perf_counter() - start)

    def _record_handshake(self, scope: Scope, send: Send, start: float) -> Send:
        """Return a ``send`` that records the handshake once it is answered."""
        context = get_request_context(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("websocket.accept", "websocket.http.response.start"):
                context.status = message.get("status", HTTPStatus.SWITCHING_PROTOCOLS.value)
                _add_headers(message, context)
                self._record(scope, context, time.perf_counter() - start)
            await send(message)

        return send_with_headers

    def _record(self, scope: Scope, context: RequestContext, seconds: float) -> None:
        path, client = scope["path"], scope.get("client")
        self._log.record(
            context,
            method=scope.get("method", "GET"),
            path=path,
            route=self._labels.get(path, "other"),
            address=client[0] if client else None,
            seconds=seconds,
        )


def _add_headers(message: Message, context: RequestContext) -> None:
    """Add the headers of every response to the start of one."""
    id_header = (b"x-request-id", context.request_id.encode())
    message["headers"] = [*message.get("headers", ()), id_header, _NOSNIFF]


def _has_body(scope: Scope) -> bool:
    """Whether the head of a request announces a body (RFC 9112, 6.3)."""
    return any(name in _BODY_HEADERS for name, _ in scope["headers"])


def _awaits_continue(scope: Scope) -> bool:
    """Whether the client sends the body only when it is asked to (RFC 9110, 10.1.1)."""
    return any(name == b"expect" for name, _ in scope["headers"])


def _client_request_id(scope: Scope) -> str | None:
    """Return the header ``X-Request-ID``."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return str(value, "latin-1")
    return None
