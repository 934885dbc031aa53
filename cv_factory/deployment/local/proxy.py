"""Reverse proxy on a model's stable port: hands each request to one of the running services.

It routes requests, not connections: a client's connection stays open while the service behind it is
replaced, and no request meets a service that is about to stop. Bytes pass through as they are; of
HTTP/1.1 it knows where a message ends. A client's requests travel on connections of its own, so
that nothing one client sends can end up in another's request.

A supervisor holds the listening socket: while a proxy that was killed is started again, clients
wait instead of being refused.
"""

import argparse
import asyncio
import json
import resource
import signal
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httptools

from cv_factory.config.serving import LogConfig
from cv_factory.deployment.local.routes import Backend, ProxyStatus, Routes, WeightedRoundRobin
from cv_factory.deployment.local.supervisor import supervise
from cv_factory.processes.log_rotation import rotate_output

ROUTES, STATUS = "routes.json", "status.json"
#: The address of a client, as the last value of this header: the services believe no other.
FORWARDED = b"X-Forwarded-For"

_LOOPBACK = "127.0.0.1"
_POLL_INTERVAL_S = 0.02
_BACKLOG = 2048
_MAX_HEAD = 64 * 2**10
_HEAD_TIMEOUT_S = 10.0
_IDLE_TIMEOUT_S = 75.0
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
        self._generation = -1
        self._routes_version: tuple[int, int] | None = None
        self._saved_status: ProxyStatus | None = None
        self.in_flight: Counter[str] = Counter()
        self.clients: set[Client] = set()

    def pick(self, without: frozenset[str] = frozenset()) -> Backend | None:
        """Return the backend of the next request; None where none is left."""
        return self._balancer.pick(without)

    def follow_routes(self) -> None:
        """Put changed routes in force and save the status."""
        path = self._folder / ROUTES
        if path.exists():
            file = path.stat()
            if self._routes_version != (file.st_mtime_ns, file.st_ino):
                self._routes_version = (file.st_mtime_ns, file.st_ino)
                routes = Routes.load(path)
                self._generation, self._balancer = (
                    routes.generation,
                    WeightedRoundRobin(routes.backends),
                )
        status = ProxyStatus(self._generation, {k: n for k, n in self.in_flight.items() if n})
        if status != self._saved_status:
            # On a full disk requests are served all the same; who waits for the status reports it.
            with suppress(OSError):
                status.save(self._folder / STATUS)
                self._saved_status = status

    def close_overdue(self) -> None:
        """Close connections of clients that are idle, or too slow in sending a request's head."""
        now = time.monotonic()
        for client in [c for c in self.clients if c.deadline < now]:
            client.close()


class Client(asyncio.Protocol):
    """Connection of one client, whose requests are answered one after the other."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._address = b""
        self._head = bytearray()
        self._head_is_complete = self._request_is_complete = False
        self._is_head_request = self._is_last = self._is_answered = False
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

    def data_received(self, data: bytes) -> None:
        """Parse more of a request and pass it on."""
        if self._is_answered:
            return
        if self._request_is_complete:
            # Pipelining: requests ahead of the answer could meet a service that was replaced.
            self.close()
            return
        had_head = self._head_is_complete
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.refuse(501, "This address speaks HTTP/1.1 and nothing else.")
            return
        except httptools.HttpParserError:
            self.refuse(400, "This is no valid HTTP/1.1 request.")
            return
        if had_head:
            if self._exchange is not None:
                self._exchange.send(data)
            return
        self._head += data
        if self._head_is_complete:
            self._begin_exchange()
        elif len(self._head) > _MAX_HEAD:
            self.refuse(431, f"The head of a request may have {_MAX_HEAD} bytes.")

    def on_headers_complete(self) -> None:
        """Record that the head is complete; called by the parser."""
        self._head_is_complete = True
        self._is_head_request = self._parser.get_method() == b"HEAD"
        self._is_last = not self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """Record that the request is complete; called by the parser."""
        self._request_is_complete = True

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
        if not keep or self._is_last or not self._request_is_complete:
            self.close_answered()
            return
        self._head_is_complete = self._request_is_complete = False
        self.deadline = time.monotonic() + _IDLE_TIMEOUT_S

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
        if self._request_is_complete or not self._transport.can_write_eof():
            self.close()
            return
        if self._upstream is not None:
            self._upstream.abort()
        self._transport.write_eof()
        self._transport.resume_reading()
        self.deadline = time.monotonic() + _HEAD_TIMEOUT_S

    def close(self) -> None:
        """Close the connection once everything is written."""
        self._transport.close()

    def _begin_exchange(self) -> None:
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            self.refuse(400, "This is no valid HTTP/1.1 request.")
            return
        self._head[end:end] = b"\r\n" + FORWARDED + b": " + self._address
        request, self._head = bytes(self._head), bytearray()
        self.deadline = float("inf")
        self._exchange = Exchange(self._proxy, self, self._is_head_request)
        upstream, self._upstream = self._upstream, None
        self._exchange.begin(request, upstream)

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
            self._proxy.in_flight[self._backend.name] -= 1
        if backend is not None:
            self._proxy.in_flight[backend.name] += 1
        self._backend = backend

    async def _connect(self, backend: Backend) -> None:
        """Connect to a service, or to another one where that does not accept."""
        loop = asyncio.get_running_loop()
        unreachable: set[str] = set()
        chosen: Backend | None = backend
        while chosen is not None:
            connecting = loop.create_connection(partial(Upstream, chosen), _LOOPBACK, chosen.port)
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
        """Fail the exchange in progress."""
        self._is_lost = True
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
    """Accept connections until this process gets SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop_requested = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_requested.set)
    proxy = Proxy(folder)
    proxy.follow_routes()
    server = await loop.create_server(partial(Client, proxy), sock=listening, backlog=_BACKLOG)
    async with server:
        checked = time.monotonic()
        while not stop_requested.is_set():
            proxy.follow_routes()
            if time.monotonic() - checked > 1.0:
                checked = time.monotonic()
                proxy.close_overdue()
            await asyncio.sleep(_POLL_INTERVAL_S)


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
    family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
    address = (arguments.host, arguments.port)
    with socket.create_server(address, family=family, backlog=_BACKLOG) as listening:
        sys.exit(supervise(partial(_serve, arguments.folder, listening)))


if __name__ == "__main__":
    main()
