"""uvicorn's HTTP protocol with bounds on what no handler waits for, which uvicorn 0.54 has not."""

import asyncio
from enum import Enum

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

#: Seconds in which the head of a request must arrive, and what is left of an answered one's body.
HEAD_TIMEOUT_S = 10.0
MAX_HEAD_BYTES = 64 * 2**10


class _Message(Enum):
    """Part of a request that the client sends next."""

    NONE = "none"
    HEAD = "head"
    BODY = "body"


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections on which a request's head, or the body of an answered one, never ends.

    Without it a few hundred clients that send a byte now and then hold all file descriptors.
    Handlers bound the bodies that they read (``limits.body_seconds``), uvicorn idle connections.
    """

    _timer: asyncio.TimerHandle | None = None
    _message = _Message.NONE
    _n_head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes; start the timer if the request that they belong to has no handler."""
        super().data_received(data)
        if self._message is _Message.NONE:
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            self._start_timer()
        if self._message is _Message.HEAD:
            self._n_head_bytes += len(data)
            if self._n_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                no_body = b"content-length: 0\r\nconnection: close\r\n\r\n"
                self.transport.write(STATUS_LINE[431] + no_body)
                self.transport.close()

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        self._message = _Message.HEAD
        self._n_head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand the request to its handler."""
        self._message = _Message.BODY
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._message = _Message.NONE
        self._stop_timer()
        super().on_message_complete()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
