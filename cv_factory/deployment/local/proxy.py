"""Reverse proxy on a model's stable port: hands each request to one of the running services.

It routes requests, not connections: a client's connection stays open while the service behind it is
replaced, and no request meets a service that is about to stop. A request is written anew from what
the parser read of it, so that nothing passes that was not examined; responses pass as they are. A
client's requests travel on connections of its own, so that nothing one client sends can end up in
another's request.

A supervisor holds the listening socket: while a proxy that was killed is started again, clients
wait instead of being refused. On SIGTERM both close it, and what is in flight is answered.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import socket
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httptools

from cv_factory.config.serving import LogConfig
from cv_factory.deployment.local.routes import (
    ROUTES,
    STATUS,
    Backend,
    ProxyStatus,
    Routes,
    WeightedRoundRobin,
    open_wake_pipe,
)
from cv_factory.deployment.local.supervisor import supervise
from cv_factory.processes.log_rotation import rotate_output
from cv_factory.processes.ports import LOOPBACK, listen

#: The address of a client, as the last value of this header: the services believe no other.
FORWARDED = b"X-Forwarded-For"

#: Offers of another protocol, which a server may ignore (RFC 9110, 7.8) and this one does.
_OFFERS = (b"upgrade", b"http2-settings")
_MAX_HEAD = 64 * 2**10
_HEAD_TIMEOUT_S = 10.0
_IDLE_TIMEOUT_S = 75.0
#: For so long the rest of a request is read that was answered before its end.
_LINGER_TIMEOUT_S = 30.0
#: Who stops the proxy decides when what is still in flight is given up, at the latest after this.
_DRAIN_TIMEOUT_S = 300.0
_DRAIN_POLL_INTERVAL_S = 0.02
#: Services close a connection that was idle for 5 s: one that could be closing is not used again.
_REUSE_TIMEOUT_S = 3.0
_CONNECT_TIMEOUT_S = 5.0


class Proxy:
    """State shared by all connections: routes, requests in flight, clients."""

    def __init__(self, folder: Path) -> None:
        """Read the routes.

        Args:
            folder: Holds ``routes.json``; ``status.json`` is written beside it.
        """
        self._folder = folder
        self._balancer = WeightedRoundRobin(())
        self._routes = Routes()
        self._names: set[str] = set()
        self._in_flight: Counter[str] = Counter()
        self.clients: set[Client] = set()
        self.is_draining = False

    def pick(self, without: frozenset[str] = frozenset()) -> Backend | None:
        """Return the backend of the next request; None where none is left."""
        return self._balancer.pick(without)

    def load_routes(self) -> None:
        """Put the saved routes in force, and say so in the status.

        Raises:
            ArtifactError: They are damaged.
        """
        self._routes = Routes.load(self._folder / ROUTES)
        self._names = {backend.name for backend in self._routes.backends}
        self._balancer = WeightedRoundRobin(self._routes.backends)
        self._save_status()

    def count(self, name: str, change: int) -> None:
        """Count a request to a backend: 1 when it is sent, -1 when it is answered."""
        self._in_flight[name] += change
        if name not in self._names and not self._in_flight[name]:
            self._save_status()

    def _save_status(self) -> None:
        in_flight = {name: n for name, n in self._in_flight.items() if n}
        # On a full disk requests are served all the same; who waits for the status reports it.
        with suppress(OSError):
            ProxyStatus(self._routes.generation, in_flight).save(self._folder / STATUS)

    async def drain(self) -> None:
        """Close idle connections, and the others once their requests are answered."""
        self.is_draining = True
        for client in [c for c in self.clients if c.is_idle]:
            client.close()
        deadline = time.monotonic() + _DRAIN_TIMEOUT_S
        while self.clients and time.monotonic() < deadline:
            self.close_overdue()
            await asyncio.sleep(_DRAIN_POLL_INTERVAL_S)

    def close_overdue(self) -> None:
        """Close connections of clients that are idle, or too slow in sending a request's head."""
        now = time.monotonic()
        for client in [c for c in self.clients if c.deadline < now]:
            client.close()


@dataclass
class Request:
    """A request as far as the parser has read it.

    Attributes:
        head: Request line and headers, without the empty line at their end.
        body: The part of the body that was not sent yet, in chunks if it came so.
    """

    target: bytes = b""
    headers: bytearray = field(default_factory=bytearray)
    head: bytes = b""
    body: bytearray = field(default_factory=bytearray)
    is_chunked: bool = False
    is_head_request: bool = False
    is_last: bool = False
    is_complete: bool = False

    def add_header(self, name: bytes, value: bytes) -> None:
        """Add a header that is passed on; trailers, which come behind the head, are not."""
        if self.head or name.lower() in _OFFERS:
            return
        self.is_chunked = self.is_chunked or name.lower() == b"transfer-encoding"
        self.headers += b"%b: %b\r\n" % (name, value)

    def complete_head(self, parser: httptools.HttpRequestParser) -> None:
        """Build the head from what the parser read."""
        method, version = parser.get_method(), parser.get_http_version().encode()
        self.head = b"%b %b HTTP/%b\r\n" % (method, self.target, version) + self.headers
        self.is_head_request = method == b"HEAD"
        self.is_last = not parser.should_keep_alive()

    def add_body(self, data: bytes) -> None:
        """Add a part of the body."""
        self.body += b"%x\r\n%b\r\n" % (len(data), data) if self.is_chunked else data

    def complete(self) -> None:
        """End the body."""
        self.body += b"0\r\n\r\n" if self.is_chunked else b""
        self.is_complete = True

    def take_body(self) -> bytes:
        """Return the part of the body that was not sent yet, which counts as sent then."""
        data = bytes(self.body)
        self.body.clear()
        return data


class Client(asyncio.Protocol):
    """Connection of one client, whose requests are answered one after the other."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._address = b""
        #: The first is being answered; more than one where the client does not wait (pipelining).
        self._requests: deque[Request] = deque()
        self._n_head_bytes = 0
        self._is_answered = False
        self._upstream: Upstream | None = None
        self._exchange: Exchange | None = None
        self.deadline = time.monotonic() + _HEAD_TIMEOUT_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the client."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]).encode() if peer else b"unknown"
        self._proxy.clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister the client and end its exchange."""
        self._proxy.clients.discard(self)
        if self._exchange is not None:
            self._exchange.end()
            self._exchange = None
        if self._upstream is not None:
            self._upstream.abort()

    @property
    def is_idle(self) -> bool:
        """Whether nothing came of a request that is not answered."""
        return not self._requests

    def data_received(self, data: bytes) -> None:
        """Parse more of a request and pass it on."""
        if self._is_answered:
            return
        try:
            self._parse(data)
        except httptools.HttpParserError:
            complete = [request for request in self._requests if request.is_complete]
            if not complete:
                self.refuse(400, "This is no valid HTTP/1.1 request.")
                return
            complete[-1].is_last = True
        self._n_head_bytes += len(data)
        # A head behind a request in progress waits: reading is paused.
        if len(self._requests) != 1 or self._requests[0].head:
            self._n_head_bytes = 0
        if self._n_head_bytes > _MAX_HEAD:
            self.refuse(431, f"The head of a request may have {_MAX_HEAD} bytes.")
            return
        self._advance()

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                request = self._requests.pop()
                if request.head.startswith(b"CONNECT "):
                    raise httptools.HttpParserInvalidMethodError from None
                # The parser takes what follows for another protocol: without the offer it does not.
                self._parser = httptools.HttpRequestParser(self)
                data = request.head + b"\r\n" + data[offer.args[0] :]

    def _advance(self) -> None:
        """Begin to answer the first request, or pass on what came of its body."""
        if not self._requests or not self._requests[0].head:
            return
        if len(self._requests) > 1:
            self.pause()
        request = self._requests[0]
        if self._exchange is not None:
            self._exchange.send(request.take_body())
            return
        self.deadline = float("inf")
        self._exchange = Exchange(self._proxy, self, request.is_head_request)
        upstream, self._upstream = self._upstream, None
        head = b"%b%b: %b\r\n\r\n" % (request.head, FORWARDED, self._address)
        self._exchange.begin(head + request.take_body(), upstream)

    def on_message_begin(self) -> None:
        """Begin a request; called by the parser, as all of these."""
        self._requests.append(Request())
        if self._exchange is None:
            self.deadline = min(self.deadline, time.monotonic() + _HEAD_TIMEOUT_S)

    def on_url(self, url: bytes) -> None:
        """Add to the target of the request."""
        self._requests[-1].target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header."""
        self._requests[-1].add_header(name, value)

    def on_headers_complete(self) -> None:
        """Complete the head."""
        self._requests[-1].complete_head(self._parser)

    def on_body(self, body: bytes) -> None:
        """Add to the body."""
        self._requests[-1].add_body(body)

    def on_message_complete(self) -> None:
        """Complete the request."""
        self._requests[-1].complete()

    def pause_writing(self) -> None:
        """Stop reading from the service: the client is slow."""
        if self._upstream is not None:
            self._upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read from the service again."""
        if self._upstream is not None:
            self._upstream.transport.resume_reading()

    def pause(self) -> None:
        """Stop reading from the client: the service is slow."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read from the client again."""
        self._transport.resume_reading()

    def answer(self, data: bytes) -> None:
        """Send a part of the response to the client."""
        self._transport.write(data)

    def end_exchange(self, keep: bool) -> None:
        """End a complete response: prepare for the next request, or close."""
        self._exchange = None
        request = self._requests[0]
        if not keep or request.is_last or not request.is_complete or self._proxy.is_draining:
            self.close_answered()
            return
        self._requests.popleft()
        timeout_s = _HEAD_TIMEOUT_S if self._requests else _IDLE_TIMEOUT_S
        self.deadline = time.monotonic() + timeout_s
        self.resume()
        self._advance()

    def refuse(self, status: int, detail: str) -> None:
        """Respond with problem details in place of a service, and close."""
        reason = HTTPStatus(status).phrase
        problem = {"type": "about:blank", "title": reason, "status": status, "detail": detail}
        body = json.dumps(problem).encode()
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n"
        )
        retry = "Retry-After: 1\r\n" if status in (502, 503) else ""
        self._transport.write(f"{head}{retry}\r\n".encode() + body)
        self.close_answered()

    def close_answered(self) -> None:
        """Close the connection after a response, which may have come before the whole request.

        Closing while the client still sends would destroy the response on its way: what comes is
        thrown away until the client has seen that nothing more will be answered.
        """
        self._is_answered = True
        is_read = len(self._requests) == 1 and self._requests[0].is_complete
        if is_read or not self._transport.can_write_eof():
            self.close()
            return
        if self._upstream is not None:
            self._upstream.abort()
        self._transport.write_eof()
        self._transport.resume_reading()
        self.deadline = time.monotonic() + _LINGER_TIMEOUT_S

    def close(self) -> None:
        """Close the connection once everything is written."""
        self._transport.close()

    def use(self, upstream: "Upstream | None") -> None:
        """Keep the connection to the service that answers this client."""
        self._upstream = upstream


class Exchange:
    """One request and its response."""

    def __init__(self, proxy: Proxy, client: Client, is_head_request: bool) -> None:
        self._proxy = proxy
        self.client = client
        self.is_head_request = is_head_request
        self.has_answer = False
        self._backend: Backend | None = None
        self._upstream: Upstream | None = None
        self._waiting = bytearray()
        self._task: asyncio.Task[None] | None = None

    def begin(self, request: bytes, upstream: "Upstream | None") -> None:
        """Send the beginning of a request to a service, on a kept connection where it fits."""
        backend = self._proxy.pick()
        if backend is None:
            self.client.refuse(503, "No service is running behind this address.")
            return
        self._count(backend)
        if upstream is not None and upstream.serves(backend):
            self._attach(upstream)
            upstream.write(request)
            return
        if upstream is not None:
            upstream.transport.close()
        self._waiting += request
        self._task = asyncio.get_running_loop().create_task(self._connect(backend))

    def send(self, data: bytes) -> None:
        """Pass more of the request on."""
        if self._upstream is None:
            self._waiting += data
            self.client.pause()
        else:
            self._upstream.write(data)

    def finish(self, keep: bool) -> None:
        """End the exchange after a complete response."""
        self.end()
        self.client.end_exchange(keep)

    def fail(self) -> None:
        """End the exchange after the service closed its connection too early."""
        self.end()
        self.client.use(None)
        if self.has_answer:
            self.client.close()
        else:
            self.client.refuse(502, "The service ended while it worked on this request.")

    def end(self) -> None:
        """Count the request as no longer in flight."""
        self._count(None)
        if self._task is not None:
            self._task.cancel()

    def _count(self, backend: Backend | None) -> None:
        if self._backend is not None:
            self._proxy.count(self._backend.name, -1)
        if backend is not None:
            self._proxy.count(backend.name, 1)
        self._backend = backend

    async def _connect(self, backend: Backend) -> None:
        """Connect to a service, or to another one where that does not accept."""
        loop = asyncio.get_running_loop()
        unreachable: set[str] = set()
        chosen: Backend | None = backend
        while chosen is not None:
            connecting = loop.create_connection(partial(Upstream, chosen), LOOPBACK, chosen.port)
            try:
                _, upstream = await asyncio.wait_for(connecting, _CONNECT_TIMEOUT_S)
            except (OSError, TimeoutError):
                unreachable.add(chosen.name)
                chosen = self._proxy.pick(frozenset(unreachable))
                self._count(chosen)
                continue
            self._task = None
            self._attach(upstream)
            upstream.write(bytes(self._waiting))
            self._waiting.clear()
            self.client.resume()
            return
        self._task = None
        self.client.refuse(502, "The service behind this address does not run.")

    def _attach(self, upstream: "Upstream") -> None:
        self._upstream = upstream
        self.client.use(upstream)
        upstream.begin(self)


class Upstream(asyncio.Protocol):
    """Connection to a service, used by one client alone."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._is_complete = self._is_kept = False
        self._idle_since = 0.0
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def serves(self, backend: Backend) -> bool:
        """Whether this connection leads to a service and can be used again."""
        fresh = time.monotonic() - self._idle_since < _REUSE_TIMEOUT_S
        same = (self._backend.name, self._backend.port) == (backend.name, backend.port)
        return same and fresh and not self._is_lost and not self.transport.is_closing()

    def begin(self, exchange: Exchange) -> None:
        """Prepare for the response to a request."""
        self._exchange = exchange
        self._is_complete = False
        self._parser = httptools.HttpResponseParser(self)

    def write(self, data: bytes) -> None:
        """Send a part of a request."""
        self.transport.write(data)

    def abort(self) -> None:
        """Close at once: the client has left."""
        self._exchange = None
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse a part of a response and pass it on."""
        exchange = self._exchange
        if exchange is None:
            self.transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._exchange = None
            self.transport.abort()
            exchange.fail()
            return
        exchange.has_answer = True
        exchange.client.answer(data)
        if self._is_complete:
            self._exchange = None
            self._idle_since = time.monotonic()
            if not self._is_kept:
                self.transport.close()
            exchange.finish(self._is_kept)

    def on_headers_complete(self) -> None:
        """Record how the response ends; called by the parser."""
        # Not later: at the end of a message the parser has forgotten its head.
        self._is_kept = bool(self._parser.should_keep_alive())
        if self._exchange is not None and self._exchange.is_head_request:
            self._is_complete = self._parser.get_status_code() >= 200

    def on_message_complete(self) -> None:
        """Record that the response is complete, if it was no 100 Continue; called by the parser."""
        self._is_complete = self._parser.get_status_code() >= 200

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange in progress, unless its answer waits to be read.

        A service that answers before the whole request may close at once: a write fails then.
        """
        self._is_lost = True
        service = self.transport.get_extra_info("socket")
        with suppress(OSError):
            while self._exchange is not None and (data := os.read(service.fileno(), 2**16)):
                self.data_received(data)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.fail()

    def pause_writing(self) -> None:
        """Stop reading from the client: the service is slow."""
        if self._exchange is not None:
            self._exchange.client.pause()

    def resume_writing(self) -> None:
        """Read from the client again."""
        if self._exchange is not None:
            self._exchange.client.resume()


async def serve(folder: Path, listening: socket.socket) -> None:
    """Accept connections until this process gets SIGTERM or SIGINT, and end what is in flight."""
    loop = asyncio.get_running_loop()
    stop_requested = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_requested.set)
    proxy = Proxy(folder)
    with open_wake_pipe(folder) as pipe:

        def wake() -> None:
            pipe.read()
            proxy.load_routes()

        # Before the routes are read: who saves others later wakes it.
        loop.add_reader(pipe, wake)
        proxy.load_routes()
        server = await loop.create_server(partial(Client, proxy), sock=listening)
        while not stop_requested.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop_requested.wait(), 1.0)
            proxy.close_overdue()
        # Not wait_closed(): from Python 3.12 on it waits for idle connections.
        server.close()
        await proxy.drain()


def _serve(folder: Path, listening: socket.socket) -> None:
    log = LogConfig()
    rotate_output(log.max_file_bytes, log.output_files)
    asyncio.run(serve(folder, listening))


def main() -> None:
    """Run a proxy: ``python -m cv_factory.deployment.local.proxy FOLDER HOST PORT``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with listen(arguments.host, arguments.port) as listening:
        # Inherited by its connections; asyncio does so for sockets of its own alone.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sys.exit(supervise(partial(_serve, arguments.folder, listening), listening.close))


if __name__ == "__main__":
    main()
