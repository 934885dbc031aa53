"""uvicorn's HTTP protocol with bounds on what no handler waits for, and with optional upgrades.

uvicorn 0.54 has neither: it waits for a head without end, and drops the body of a request that
offers to go on with another protocol, as ``curl --http2`` does.
"""

import asyncio
from enum import Enum
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from cv_factory.serving.websocket_protocol import WEBSOCKET_PATH, BoundedWebSocketProtocol

#: Seconds in which the head of a request must arrive, and what is left of an answered one's body.
HEAD_TIMEOUT_S = 10.0
MAX_HEAD_BYTES = 64 * 2**10
_INVALID = "Invalid HTTP request received."


class _Message(Enum):
    """Part of a request that the client sends next."""

    NONE = "none"
    HEAD = "head"
    BODY = "body"


class _MergingTransport:
    """Transport that sends the head of a response together with the start of its body.

    uvicorn writes them apart, and uvloop sends each write at once: two packets, two wake-ups of the
    client. A head whose body is not there yet is sent in the next iteration of the event loop.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send bytes after those that wait; the first ones wait for these."""
        if self._waiting:
            self._waiting += data
            self._flush()
        else:
            self._waiting = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Send what waits, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        data, self._waiting = self._waiting, b""
        if data and not self._transport.is_closing():
            self._transport.write(data)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections on which a request's head, or the body of an answered one, never ends.

    Without it a few hundred clients that send a byte now and then hold all file descriptors.
    Handlers bound the bodies that they read (``limits.body_seconds``), uvicorn idle connections.
    """

    _timer: asyncio.TimerHandle | None = None
    _message = _Message.NONE
    _n_head_bytes = 0
    _has_ended_message = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._unmerged_transport = transport
        self.transport = cast(asyncio.Transport, _MergingTransport(transport, self.loop))
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes; start the timer if the request that they belong to has no handler."""
        self._unset_keepalive_if_required()
        self._has_ended_message = False
        rest = data
        while rest:
            rest = self._parse(rest)
        self._bound_message(len(data))

    def _parse(self, data: bytes) -> bytes:
        """Parse bytes; return those to be parsed again, from a head that offers an upgrade on."""
        try:
            self.parser.feed_data(data)
        except HttpParserError:
            self.logger.warning(_INVALID)
            self.send_400_response(_INVALID)
        except HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._is_optional_upgrade():
                return self._ignore_upgrade(rest)
            if self._should_upgrade() and not rest and self._is_idle():
                self.ws_protocol_class = BoundedWebSocketProtocol
                self.transport = self._unmerged_transport
                self.handle_websocket_upgrade()
            else:
                self.send_400_response(_INVALID)
        return b""

    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _bound_message(self, n_bytes: int) -> None:
        """Bound the time and the size of what has arrived of a message that has no handler."""
        if self._message is _Message.NONE:
            return
        is_idle = self._is_idle()
        if is_idle:
            self._start_timer()
        # Bytes that came with the end of the message before are most likely that one's.
        if self._message is _Message.HEAD and not self._has_ended_message:
            self._n_head_bytes += n_bytes
            if self._n_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                if is_idle:
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
        if self._is_optional_upgrade():
            return
        self._message = _Message.BODY
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        if self._is_optional_upgrade():
            return
        self._message = _Message.NONE
        self._has_ended_message = True
        self._stop_timer()
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        # RFC 6455, 4.1: any other method is no handshake.
        is_handshake = self.parser.get_method() == b"GET" and super()._should_upgrade()
        return is_handshake and self.url.partition(b"?")[0] == WEBSOCKET_PATH.encode()

    def _is_optional_upgrade(self) -> bool:
        """Whether the request offers a protocol that we do not speak, and can be answered so."""
        is_upgrade = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        return is_upgrade and not self._should_upgrade()

    def _ignore_upgrade(self, rest: bytes) -> bytes:
        """Return a head without the offer (RFC 9110, 7.8), and what came after it.

        A new parser is to read both: this one takes the rest for another protocol.
        """
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                value = b", ".join(o for o in options if o.lower() != b"upgrade")
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"".join([*head, b"\r\n", rest])

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
