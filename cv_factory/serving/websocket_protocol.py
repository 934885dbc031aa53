"""uvicorn's WebSocket protocol with bounds on what no application waits for, and a graceful end.

uvicorn 0.54 has neither: it waits for messages without end, lets a client that reads nothing hold
its connection, and drops the answers that are being computed when the server stops.
"""

import asyncio
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.server import ServerProtocol

#: The only path at which a connection goes on as WebSocket; offers at others are ignored.
WEBSOCKET_PATH = "/ws"
#: Seconds in which a closed connection must have ended.
CLOSE_TIMEOUT_S = 2.0
#: Keys of the ASGI message ``websocket.accept`` that bound each message of the connection.
MAX_MESSAGE_BYTES, MESSAGE_SECONDS = "max_message_bytes", "message_seconds"
#: Close codes (RFC 6455, 7.4.1).
TOO_SLOW, TOO_BIG, RESTART, _NO_UTF8 = 1008, 1009, 1012, 1007


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """Bounds the size and the duration of messages, and ends connections whose client is gone.

    When the server stops, the application gets a disconnect with the code 1012, may send the
    answers that are due, and closes the connection.
    """

    _message_seconds = 10.0
    _message_timer: asyncio.TimerHandle | None = None
    _abort_timer: asyncio.TimerHandle | None = None
    _last_received = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Images are compressed already. No message comes before the connection is accepted.
        self.conn = ServerProtocol(max_size=0, logger=self.logger)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_message_timer()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self.read_paused = False  # uvloop raises where a closed connection is to be read
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes; start the timer of the message of which they are a part."""
        self._last_received = self.loop.time()
        if self.handshake_initiated and not self.handshake_complete:
            self.transport.abort()  # RFC 6455, 4.1: the client waits for the handshake's end
            return
        super().data_received(data)
        if not self.handshake_initiated:
            # websockets has tighter bounds of a head than httptools, and writes the rejection.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        self._bound_message()

    def send_receive_event_to_app(self) -> None:
        """Hand a message to the application."""
        self._stop_message_timer()
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:  # uvicorn 0.54 logs a traceback
                self.conn.fail(_NO_UTF8, "a text message is not UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next event; read on if there was none left."""
        event = await super().receive()
        if not self.writable.is_set() and not self.transport.is_closing():
            self.transport.pause_reading()
        self._bound_message()
        return event

    async def send(self, message: ASGISendEvent) -> None:
        """Send an event; accepting the connection sets its bounds."""
        if self.close_sent:
            raise ClientDisconnected
        if message["type"] == "websocket.accept":
            bounds: dict[str, Any] = {**message}
            self.conn.max_message_size = bounds.get(MAX_MESSAGE_BYTES, self.config.ws_max_size)
            self._message_seconds = bounds.get(MESSAGE_SECONDS, self._message_seconds)
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # uvicorn 0.54 logs an error for a rejected handshake

    async def run_asgi(self) -> None:
        """Run the application; end the connection soon after it."""
        await super().run_asgi()
        self._abort_later()

    def pause_writing(self) -> None:
        """Read nothing while the client reads nothing: each ping would be answered."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on, unless the application has a message to read."""
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    def handle_ping(self) -> None:
        """Answer a ping, unless it came with a message that ended the connection."""
        if not self.close_sent:
            super().handle_ping()

    def handle_close(self, event: Any) -> None:
        """Answer a close frame."""
        super().handle_close(event)
        self._abort_later()

    def handle_parser_exception(self) -> None:
        """Close the connection; read and drop what comes, or the close frame would be lost."""
        if self.close_sent:
            return
        close = self.conn.close_sent
        assert close is not None
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": close.code, "reason": close.reason}
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.write_eof()
        self.read_paused = False
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """End the connection, unless the client has sent something else than an answer."""
        is_window_full = self.read_paused and self.writable.is_set()
        if self._last_received > self.ping_sent_at or is_window_full:
            self.pong_timer = None
            self.schedule_ping()
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        """Let the application answer what it has read, and close the connection."""
        if self.handshake_complete and not self.close_sent and not self.disconnected:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": RESTART})
        else:
            super().shutdown()

    def _bound_message(self) -> None:
        """Start the timer if a part of a message has come and the rest is waited for."""
        is_partial = bool(self.conn.reader.buffer) or self.conn.current_size is not None
        is_stopped = self.read_paused or self.close_sent or self.transport.is_closing()
        if is_stopped or not is_partial:
            self._stop_message_timer()
        elif self._message_timer is None:
            self._message_timer = self.loop.call_later(self._message_seconds, self._reject_slow)

    def _reject_slow(self) -> None:
        self._message_timer = None
        self.conn.fail(TOO_SLOW, f"a message took longer than {self._message_seconds:g} s")
        self.handle_parser_exception()

    def _stop_message_timer(self) -> None:
        if self._message_timer is not None:
            self._message_timer.cancel()
            self._message_timer = None

    def _abort_later(self) -> None:
        """End the connection in a while, also if the client does not read what is left."""
        if self._abort_timer is None and not self.disconnected:
            self._abort_timer = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)
