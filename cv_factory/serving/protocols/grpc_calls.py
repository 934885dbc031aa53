"""Calls of gRPC clients: their senders, messages, records and errors, whatever the service."""

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from cv_factory.serving.auth.access import read_credential
from cv_factory.serving.prediction_service import Caller
from cv_factory.serving.problem_details import ProblemError, internal_error
from cv_factory.serving.request_log import RequestContext, RequestLog, make_request_id

_log = logging.getLogger(__name__)

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
#: With nginx's status for it.
_CANCELLED = ProblemError(499, "cancelled", "the client ended the call, or its deadline has passed")
#: Where a message is too large, gRPC ends its call, but says so here only after this.
_CANCELLATION_DELAY_S = 0.05
#: uvicorn believes ``X-Forwarded-For`` of this address, too.
_PROXY_ADDRESS = "127.0.0.1"


@dataclass
class Call:
    """One request: a call, or a message of a stream.

    Attributes:
        context: The call in gRPC.
        path: Full name of its method.
        headers: Its metadata by name, in lower case.
        caller: Sender.
        record: Facts for its log line.
        message: The request, serialized; None until it is read.
        start: As of ``time.perf_counter``.
    """

    context: Any
    path: str
    headers: Mapping[str, str]
    caller: Caller
    record: RequestContext
    message: bytes | None = None
    start: float = field(default_factory=time.perf_counter)

    @classmethod
    def open(cls, context: Any, path: str, generator: random.Random) -> "Call":
        """Return a call that has begun; its message is not read yet.

        Args:
            context: The call in gRPC.
            path: Full name of its method.
            generator: Makes its id, if the client has sent none.
        """
        headers = {
            name: value
            for name, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        address = _client_address(context.peer(), headers.get("x-forwarded-for", ""))
        record = RequestContext(make_request_id(headers.get("x-request-id"), generator))
        return cls(context, path, headers, Caller(address, read_credential(headers)), record)

    async def read(self, message_class: Any, timeout_s: float) -> Any:
        """Return the request.

        Raises:
            ProblemError: 400: it is missing, or no such message; 408: it is late.
        """
        if self.message is None:
            try:
                async with asyncio.timeout(timeout_s):
                    self.message = await self._read_message()
            except TimeoutError:
                detail = f"the message did not arrive within {timeout_s:g} s"
                raise ProblemError(408, "too-slow", detail) from None
        try:
            return message_class.FromString(self.message)
        except DecodeError:
            detail = f"the message is not an {message_class.DESCRIPTOR.full_name}"
            raise ProblemError(400, "message", detail) from None

    async def _read_message(self) -> bytes:
        message = await self.context.read()
        if message is grpc.aio.EOF:
            await asyncio.sleep(_CANCELLATION_DELAY_S)
            raise ProblemError(400, "incomplete", "the call ended before its message")
        return bytes(message)

    def write_record(self, log: RequestLog) -> None:
        """Write the request's log line and count it."""
        log.record(
            self.record,
            method="gRPC",
            path=self.path,
            route=self.path,
            address=self.caller.address,
            seconds=time.perf_counter() - self.start,
        )

    def fail(self, problem: ProblemError) -> None:
        """Note why the request failed."""
        self.record.status, self.record.problem = problem.status, problem.kind

    async def abort(self, problem: ProblemError) -> NoReturn:
        """End the call with an error.

        Its trailing metadata have what HTTP clients are told by status, body and headers.
        """
        metadata = [
            ("x-request-id", self.record.request_id),
            ("problem-type", problem.to_dict()["type"]),
            ("problem-status", str(problem.status)),
            *((name.lower(), value) for name, value in problem.headers.items()),
        ]
        if (seconds := problem.headers.get("Retry-After")) is not None:
            # For clients with a retry policy: https://github.com/grpc/proposal/blob/master/A6.
            metadata.append(("grpc-retry-pushback-ms", str(1000 * int(seconds))))
        await self.context.abort(_CODES[problem.status], str(problem), tuple(metadata))
        raise AssertionError("abort() raises")


@contextmanager
def record_call(call: Call, log: RequestLog) -> Iterator[None]:
    """Record a request when its block ends.

    Raises:
        ProblemError: The request failed; 500 for a fault of the service, which is logged.
    """
    try:
        yield
        call.record.status = 200
    except ProblemError as problem:
        call.fail(problem)
        raise
    except asyncio.CancelledError:
        call.fail(_CANCELLED)
        raise
    except Exception:  # noqa: BLE001 (gRPC would send its text to the client)
        _log.exception("%s failed, request id %s", call.path, call.record.request_id)
        # Counted as over HTTP.
        call.record.status, call.record.problem = 500, "internal"
        raise internal_error(call.record.request_id) from None
    finally:
        call.write_record(log)


def _client_address(peer: str, forwarded: str) -> str | None:
    """Return the IP address of a client.

    Args:
        peer: As gRPC writes it: ``ipv4:127.0.0.1:40000`` or ``ipv6:%5B::1%5D:40000``.
        forwarded: Header ``X-Forwarded-For``; as with HTTP, a proxy on this machine is believed.
    """
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    host = rest.rpartition(":")[0].strip("[]")
    hosts = [part.strip() for part in forwarded.split(",") if part.strip()]
    if host == _PROXY_ADDRESS and hosts:
        return next((h for h in reversed(hosts) if h != _PROXY_ADDRESS), hosts[0])
    return host
