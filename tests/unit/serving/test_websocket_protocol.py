"""WebSocket connections that a client does not use as it should, over real sockets."""

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cv_factory.serving import websocket_protocol
from tests.support.loopback_server import LoopbackServer, listen

_HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
_ZERO_MASK = bytes(4)
_PING = b"\x89\xfd" + _ZERO_MASK + bytes(125)
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def frame(content: bytes) -> bytes:
    """Return a binary message of a client, of up to 65,535 bytes."""
    return b"\x82\xfe" + struct.pack(">H", len(content)) + _ZERO_MASK + content


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send each message back; answer other requests with their path."""
    if scope["type"] == "http":
        await PlainTextResponse(scope["path"])(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


def converse(app: ASGIApp, client: Client, **options: Any) -> None:
    """Let a client talk to a server until that has no connection left."""

    async def main() -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with asyncio.timeout(60), listen(app, **options) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            await client(reader, writer)
            await end(server)
            writer.close()
        assert faults == []

    async def end(server: LoopbackServer) -> None:
        while server.state.connections or server.state.tasks:
            await asyncio.sleep(0.001)

    uvloop.run(main())


async def shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_HEAD + b"\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


def close_frame(code: int, reason: bytes) -> bytes:
    """Return a service's close frame."""
    return bytes((0x88, 2 + len(reason))) + struct.pack(">H", code) + reason


async def flood(writer: asyncio.StreamWriter) -> None:
    """Send pings until the connection ends."""
    while True:
        writer.write(1000 * _PING)
        await writer.drain()


def test_an_offer_at_another_path_is_ignored() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = _HEAD.replace(b"/ws", b"/wsx").replace(b"Connection: ", b"Connection: close, ")
        writer.write(head + b"\r\n")
        response = await reader.read()
        assert response.startswith(b"HTTP/1.1 200 ")
        assert response.endswith(b"/wsx")

    converse(echo, client)


def test_a_message_in_the_segment_of_the_handshake_is_refused() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD + b"\r\n" + frame(b"early"))
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")

    converse(echo, client)


def test_a_message_before_the_handshake_is_complete_ends_the_connection() -> None:
    is_asked = asyncio.Event()

    async def undecided(_scope: Scope, receive: Receive, _send: Send) -> None:
        is_asked.set()
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD + b"\r\n")
        await is_asked.wait()
        writer.write(frame(b"early"))
        assert await reader.read() == b""

    converse(undecided, client)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (_HEAD + b"X-A: " + 9000 * b"a" + b"\r\n", 431),
        (_HEAD.replace(b"13", b"12"), 400),
        (_HEAD.replace(b"/ws", b"/ws?" + 9000 * b"a"), 414),
    ],
)
def test_a_handshake_that_cannot_be_read_is_answered(head: bytes, status: int) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 %d " % status)

    converse(echo, client)


def test_a_client_may_vanish_while_its_message_is_handled() -> None:
    is_handled, is_gone = asyncio.Event(), asyncio.Event()

    async def slow_echo(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        is_handled.set()
        await is_gone.wait()
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await send({"type": "websocket.send", "bytes": b"late"})

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        writer.write(frame(b"1"))
        await is_handled.wait()
        writer.write(frame(b"2"))
        writer.transport.abort()
        is_gone.set()

    converse(slow_echo, client)


def test_a_client_that_only_sends_pings_is_ended() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionError):
            await flood(writer)

    converse(echo, client, ws_ping_interval=0.05, ws_ping_timeout=0.05)


def test_a_client_that_sends_messages_is_alive_though_it_answers_no_ping() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        n_pings = 0
        while n_pings < 3:
            writer.write(frame(b"message"))
            received = await reader.read(9)
            n_pings += received.startswith(b"\x89")
        writer.close()

    converse(echo, client, ws_ping_interval=0.01, ws_ping_timeout=0.01)


def test_a_client_that_does_not_read_the_close_frame_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket_protocol, "CLOSE_TIMEOUT_S", 0.05)

    async def rejecting(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": bytes(8_000_000)})
        await send({"type": "websocket.close", "code": 1001})

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        reader._transport.pause_reading()  # type: ignore[attr-defined]

    converse(rejecting, client, ws_ping_interval=0.05, ws_ping_timeout=0.05)


def test_text_that_is_not_utf8_ends_the_connection_with_all_that_came_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        writer.write(b"\x81\x81" + _ZERO_MASK + b"\xff" + _PING + frame(b"later"))
        assert (await reader.read()).endswith(close_frame(1007, b"a text message is not UTF-8"))
        writer.close()

    caplog.set_level(logging.WARNING)
    converse(echo, client)
    assert caplog.records == []


def test_the_reason_of_a_rejection_arrives_while_the_message_is_sent() -> None:
    async def bounded(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "max_message_bytes": 1000})
        assert await receive() == {
            "type": "websocket.disconnect",
            "code": 1009,
            "reason": "frame with 60000 bytes exceeds limit of 1000 bytes",
        }

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        for _ in range(100):
            writer.write(frame(bytes(60_000)))
            await writer.drain()
        reason = b"frame with 60000 bytes exceeds limit of 1000 bytes"
        assert await reader.read() == close_frame(1009, reason)
        writer.close()

    converse(bounded, client)
