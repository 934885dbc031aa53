"""What happens to every request: an id, a line in the log, a place in the metrics, safe headers."""

import random
import re
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cv_factory.serving.logging.request_log import AsyncLineWriter, now
from cv_factory.serving.prometheus_metrics import Metrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_NOSNIFF = (b"x-content-type-options", b"nosniff")


@dataclass
class Exchange:
    """What is found out about a request while it is answered; no content of it."""

    request_id: str
    key: str | None = None
    images: int = 0
    problem: str | None = None
    status: int = 0


def exchange_of(scope: MutableMapping[str, Any]) -> Exchange:
    """Return the exchange that a request is part of."""
    exchange: Exchange = scope["exchange"]
    return exchange


class Front:
    """Stands before the application."""

    def __init__(
        self, app: ASGIApp, routes: frozenset[str], metrics: Metrics, log: AsyncLineWriter | None
    ) -> None:
        """Remember where requests go and where they are noted.

        Args:
            app: What answers.
            routes: Paths that are counted by name; all others are counted as one.
            metrics: Where requests are counted.
            log: Where they are written down, if they are.
        """
        self._app = app
        self._routes = routes
        self._metrics = metrics
        self._log = log
        self._random = random.Random()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the server's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        request_id = _request_id(scope) or f"{self._random.getrandbits(128):032x}"
        exchange = scope["exchange"] = Exchange(request_id)

        async def send_noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                id_header = (b"x-request-id", exchange.request_id.encode())
                message["headers"] = [*message.get("headers", ()), id_header, _NOSNIFF]
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            self._note(scope, exchange, time.perf_counter() - begun)

    def _note(self, scope: Scope, exchange: Exchange, seconds: float) -> None:
        path = scope["path"]
        self._metrics.request(path if path in self._routes else "other", exchange.status, seconds)
        if exchange.problem is not None:
            self._metrics.problem(exchange.problem)
        if self._log is not None:
            client = scope.get("client")
            self._log.put(
                {
                    "time": now(),
                    "event": "request",
                    "request_id": exchange.request_id,
                    "method": scope["method"],
                    "path": path[:200],
                    "status": exchange.status,
                    "milliseconds": round(1000 * seconds, 3),
                    "key": exchange.key,
                    "address": client[0] if client else None,
                    "images": exchange.images,
                    "problem": exchange.problem,
                }
            )


def _request_id(scope: Scope) -> str | None:
    """Return the client's own id of the request if there is one and it is harmless."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return None
