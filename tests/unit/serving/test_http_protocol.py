"""Connections that a client does not use as it should, over real sockets."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cv_factory.serving import http_protocol
from cv_factory.serving.application import Application
from tests.support.digits_service import digits_bundle
from tests.support.loopback_server import listen

_POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


def converse(app: ASGIApp, client: Client) -> bytes:
    """Return what a client gets from a server of the application."""

    async def run() -> bytes:
        async with listen(app) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            try:
                return await client(reader, writer)
            finally:
                writer.close()

    return asyncio.run(run())


def send(*parts: bytes) -> Client:
    """Return a client that sends parts and then reads until the server closes the connection."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await reader.read()

    return client


@pytest.mark.parametrize("start", [b"", b"POST /predict HTTP/1.1\r\nHost: x\r\nX-A: "])
def test_a_head_that_does_not_end_is_closed(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.02)
    assert converse(PlainTextResponse("ok"), send(start)) == b""


def test_a_second_head_that_does_not_end_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nok")
        monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.02)
        writer.write(b"GET / HT")
        return await reader.read()

    assert converse(PlainTextResponse("ok"), client) == b""


def test_a_head_may_not_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "MAX_HEAD_BYTES", 100)
    head = b"GET / HTTP/1.1\r\nX-A: " + 200 * b"a"
    response = converse(PlainTextResponse("ok"), send(head))
    assert response.startswith(b"HTTP/1.1 431 ")


def test_a_body_does_not_count_to_the_head_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "MAX_HEAD_BYTES", 100)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(_POST + b"Content-Length: 200\r\n\r\n" + 200 * b"a" + b"GET / HTTP/1.1\r\n")
        await reader.readuntil(b"\r\n\r\nok")
        writer.write(b"Host: x\r\nConnection: close\r\n\r\n")
        return await reader.read()

    assert converse(PlainTextResponse("ok"), client).endswith(b"\r\n\r\nok")


def test_a_head_that_is_too_large_is_not_answered_in_the_place_of_the_request_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_protocol, "MAX_HEAD_BYTES", 100)
    is_handled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        is_handled.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nX-A: ")
        await is_handled.wait()
        writer.write(200 * b"a")
        return await reader.read()

    assert converse(app, client) == b""


def test_many_offers_in_one_segment_are_ignored() -> None:
    offer = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    response = converse(PlainTextResponse("ok"), send(1100 * offer + last))
    assert response.count(b"HTTP/1.1 200 ") == 1101


def test_the_body_of_an_answered_request_must_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.02)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(_POST + b"Content-Length: 100\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nok")
        writer.write(b"a")
        return await reader.read()

    assert converse(PlainTextResponse("ok"), client) == b""


def test_requests_follow_each_other_on_one_connection() -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n"
    requests = [request + b"\r\n", request + b"\r\n", request + b"Connection: close\r\n\r\n"]
    assert converse(PlainTextResponse("ok"), send(*requests)).count(b"\r\n\r\nok") == 3


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0, h2c"])
def test_the_offer_of_another_protocol_costs_no_body(protocol: str) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        names = ",".join(sorted(request.headers))
        await PlainTextResponse(names.encode() + b":" + await request.body())(scope, receive, send)

    offer = f"Upgrade: {protocol}\r\nConnection: Upgrade, HTTP2-Settings, close\r\n".encode()
    head = _POST + offer + b"HTTP2-Settings: AAMA\r\nContent-Length: 10\r\n\r\n"
    for parts in ([head + b"0123456789"], [head, b"01234", b"56789"], [head[:-1], b"\n0123456789"]):
        response = converse(echo, send(*parts))
        assert response.startswith(b"HTTP/1.1 200 ")
        names = b"connection,content-length,content-type,host,http2-settings"
        assert response.endswith(names + b":0123456789")


def test_a_tunnel_is_refused() -> None:
    request = b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"
    assert converse(PlainTextResponse("ok"), send(request)).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 4000000\r\n\r\n", 413),
        (b"Content-Length: 4000000\r\nContent-Encoding: br\r\nConnection: close\r\n\r\n", 415),
        (b"Transfer-Encoding: chunked\r\n\r\n3D0900\r\n", 413),
    ],
)
def test_a_rejection_is_not_lost_while_the_body_is_sent(head: bytes, status: int) -> None:
    app = Application(digits_bundle(limits={"max_body_bytes": 2000}))
    body = [b"x" * 500_000] * 8
    end = b"\r\n0\r\n\r\n" if b"chunked" in head else b""
    try:
        response = converse(app, send(_POST + head, *body, end))
    finally:
        app.close()
    assert response.startswith(b"HTTP/1.1 %d " % status)
    assert response.endswith(b"}")


def test_a_head_and_its_body_are_sent_together_and_a_head_alone_at_once() -> None:
    has_head = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/slow":
            await has_head.wait()
        await send({"type": "http.response.body", "body": b"ok"})

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        together = await reader.read(2**16)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.read(2**16)
        has_head.set()
        return b"|".join([together[-6:], head[-4:], await reader.read(2**16)])

    assert converse(app, client) == b"\r\n\r\nok|\r\n\r\n|ok"
