"""WebSocket route: one encoded image a binary message in, one JSON answer out.

Clients may send without waiting for answers: while ``websocket.window`` images of a connection are
predicted, it is read no further, so that TCP holds back its client.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from cv_factory.config.serving import ServingConfig
from cv_factory.serving.auth.access import AccessControl
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.json_encoder import encode_json
from cv_factory.serving.middleware import get_request_context
from cv_factory.serving.prediction_service import Caller, PredictionService
from cv_factory.serving.problem_details import ProblemError, overloaded_error
from cv_factory.serving.prometheus_metrics import ServiceMetrics
from cv_factory.serving.request_log import REQUEST_ID, RequestContext, RequestLog
from cv_factory.serving.request_parsing import read_caller
from cv_factory.serving.response_cache import allows_cached_answer
from cv_factory.serving.websocket_protocol import (
    MAX_MESSAGE_BYTES,
    MESSAGE_SECONDS,
    RESTART,
    TOO_BIG,
    TOO_SLOW,
    WEBSOCKET_PATH,
)

SUBPROTOCOL = "cv-factory.v1"
#: Browsers can send no header, but subprotocols: one is this prefix and the key or token.
_KEY_PREFIX = "key."
_METHOD = "WEBSOCKET"
_GOING_AWAY, _UNSUPPORTED, _POLICY, _FAULT = 1001, 1003, 1008, 1011
_MAX_NAME_LENGTH = 200
_BAD_NAME = 'a text message must be {"request_id": "1 to 64 of A-Z a-z 0-9 . _ -"}'
#: What the protocol rejected before the application had it, by its close code.
_REJECTIONS = {TOO_BIG: (413, "body-too-large"), TOO_SLOW: (408, "too-slow")}


class WebSocketPredictions:
    """WebSocket endpoint of an application."""

    def __init__(
        self,
        serving: ServingConfig,
        access: AccessControl,
        predictions: PredictionService,
        metrics: ServiceMetrics,
        log: RequestLog,
        describe: Callable[[Sequence[ScoredImage], float], dict[str, Any]],
    ) -> None:
        """Open no connection yet.

        Args:
            serving: Limits, and origins whose pages may connect.
            access: Authenticates clients before a connection is accepted.
            predictions: Predicts the images; it authenticates and limits each.
            metrics: Has the gauge of open connections.
            log: Records each image as a request.
            describe: Returns the answer to predictions that took some seconds.
        """
        self.serving = serving
        self.predictions = predictions
        self.log = log
        self.describe = describe
        self._access = access
        self._metrics = metrics
        self._n_connections = 0

    async def serve(self, websocket: WebSocket) -> None:
        """Serve a connection.

        Raises:
            ProblemError: 401, 403, 429 or 503 in place of the handshake.
        """
        caller = await self._admit(websocket)
        self._n_connections += 1
        try:
            with self._metrics.track_connection():
                await _Connection(self, websocket, caller).serve()
        finally:
            self._n_connections -= 1

    async def _admit(self, websocket: WebSocket) -> Caller:
        """Return who opens a connection.

        Raises:
            ProblemError: They may not, or there are too many.
        """
        caller = read_caller(websocket)
        if caller.credential is None:
            caller = replace(caller, credential=_offered_credential(websocket))
        self._access.check_address_rate_limit(caller.address)
        check_origin(websocket.headers, self.serving.access.origins)
        principal = await self._access.identify(caller.credential, "predict")
        get_request_context(websocket.scope).principal_name = principal.name
        if self._n_connections >= self.serving.websocket.max_connections:
            raise overloaded_error()
        return caller


class _Connection:
    """One connection and the images that are being predicted."""

    def __init__(self, route: WebSocketPredictions, websocket: WebSocket, caller: Caller) -> None:
        self._route = route
        self._websocket = websocket
        self._caller = caller
        self._context = get_request_context(websocket.scope)
        self._may_use_cache = allows_cached_answer(websocket.headers)
        self._window = asyncio.Semaphore(route.serving.websocket.window)
        self._n_frames = 0
        self._request_id: str | None = None

    async def serve(self) -> None:
        """Accept the connection, answer its messages, and close it."""
        await self._accept()
        try:
            async with asyncio.TaskGroup() as frames:
                close = await self._read(frames)
        except Exception:
            detail = f"the service failed; give its operator the id {self._context.request_id}"
            await self._close(_FAULT, detail)
            raise
        await self._close(*close)

    async def _accept(self) -> None:
        websocket, serving = self._websocket, self._route.serving
        await websocket.receive()
        offers = websocket.scope.get("subprotocols", ())
        await websocket.send(
            {
                "type": "websocket.accept",
                "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offers else None,
                "headers": [],
                MAX_MESSAGE_BYTES: serving.limits.max_body_bytes,
                MESSAGE_SECONDS: serving.limits.body_seconds,
            }
        )
        await self._send({"window": serving.websocket.window})

    async def _read(self, frames: asyncio.TaskGroup) -> tuple[int, str]:
        """Start the prediction of each image; return the code and reason of the end."""
        idle_seconds = self._route.serving.websocket.idle_seconds
        while True:
            await self._window.acquire()
            try:
                async with asyncio.timeout(idle_seconds):
                    image = await self._next_image()
            except TimeoutError:
                return _GOING_AWAY, f"no image for {idle_seconds:g} s"
            except WebSocketDisconnect as end:
                self._record_rejection(end.code)
                return end.code, "the service stops; connect again" if end.code == RESTART else ""
            if image is None:
                return _UNSUPPORTED, _BAD_NAME
            frames.create_task(self._answer(image, self._next_context(), self._n_frames))

    async def _next_image(self) -> bytes | None:
        """Return the next binary message; None after a text message that names none.

        Raises:
            WebSocketDisconnect: There is none.
        """
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            image: bytes | None = message.get("bytes")
            if image is not None:
                return image
            self._request_id = parse_request_id(message["text"])
            if self._request_id is None:
                return None

    def _next_context(self) -> RequestContext:
        """Return the context of the next image, with the id that the client gave it, if any."""
        self._n_frames += 1
        request_id, self._request_id = self._request_id, None
        context = RequestContext(request_id or f"{self._context.request_id}-{self._n_frames}")
        context.principal_name = self._context.principal_name
        return context

    async def _answer(self, image: bytes, context: RequestContext, frame: int) -> None:
        """Predict an image and send the answer."""

        async def read_images() -> list[bytes]:
            return [image]

        start = time.perf_counter()
        answer: dict[str, Any] = {"frame": frame, "request_id": context.request_id}
        context.status, context.problem = 500, "internal"
        try:
            results = await self._route.predictions.predict(
                self._caller, read_images, context, may_use_cache=self._may_use_cache
            )
            context.status, context.problem = 200, None
            answer |= self._route.describe(results, time.perf_counter() - start)
        except ProblemError as error:
            context.status, context.problem = error.status, error.kind
            answer |= describe_problem(error)
        finally:
            self._record(context, time.perf_counter() - start)
        await self._send(answer)
        if context.status in (401, 403):
            await self._close(_POLICY, str(answer["detail"]))
        self._window.release()

    def _record_rejection(self, code: int) -> None:
        """Record a message that was too large or too slow."""
        if code in _REJECTIONS:
            context = self._next_context()
            context.status, context.problem = _REJECTIONS[code]
            self._record(context, 0.0)

    def _record(self, context: RequestContext, seconds: float) -> None:
        self._route.log.record(
            context,
            method=_METHOD,
            path=WEBSOCKET_PATH,
            route=WEBSOCKET_PATH,
            address=self._caller.address,
            seconds=seconds,
        )

    async def _send(self, answer: Mapping[str, Any]) -> None:
        """Send an answer, unless the connection has ended."""
        if self._websocket.application_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect):
                await self._websocket.send_text(encode_json(answer).decode())

    async def _close(self, code: int, reason: str) -> None:
        """Close the connection, unless it has ended."""
        if self._websocket.application_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect):
                # A close frame holds 125 bytes, 2 of which are the code.
                await self._websocket.close(code, reason.encode()[:123].decode(errors="ignore"))


def check_origin(headers: Mapping[str, str], origins: Sequence[str]) -> None:
    """Refuse connections from web pages of other origins; browsers themselves allow all.

    Args:
        headers: Of the handshake, by lower-case name.
        origins: Those that ``access.origins`` allows.

    Raises:
        ProblemError: 403.
    """
    origin = headers.get("origin")
    if origin is None or origin in origins or "*" in origins:
        return
    if origin.partition("://")[2] != headers.get("host"):
        detail = f"pages of {origin[:200]!r} may not connect: name it in access.origins"
        raise ProblemError(403, "origin", detail)


def parse_request_id(text: str) -> str | None:
    """Return the id in a text message such as ``{"request_id": "camera-17"}``; None if invalid."""
    if len(text) > _MAX_NAME_LENGTH:
        return None
    try:
        content = json.loads(text)
    except ValueError:
        return None
    if not isinstance(content, dict) or content.keys() != {"request_id"}:
        return None
    request_id = content["request_id"]
    is_valid = isinstance(request_id, str) and REQUEST_ID.fullmatch(request_id)
    return request_id if is_valid else None


def describe_problem(error: ProblemError) -> dict[str, Any]:
    """Return the problem details of a rejected image, with the seconds until a retry, if any."""
    retry_after = error.headers.get("Retry-After")
    return error.to_dict() | ({"retry_after": int(retry_after)} if retry_after else {})


def _offered_credential(websocket: WebSocket) -> str | None:
    """Return the key or token among the subprotocols that a client offers."""
    for offer in websocket.scope.get("subprotocols", ()):
        if offer.startswith(_KEY_PREFIX):
            return str(offer.removeprefix(_KEY_PREFIX))
    return None
