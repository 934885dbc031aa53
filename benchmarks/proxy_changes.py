"""Requests that clients lose while a model's proxy changes its routes, and how soon it is back.

Two small echo services (HTTP/1.1, WebSocket, gRPC) behind the proxy. Kept connections send REQUESTS
(default 100,000) requests and messages in all, over CHANGES (default 200) changes of the shares; a
request is lost when its answer is missing or wrong. Then 10,000 clients are told apart by a header
while the canary's share grows, and the proxy is killed five times.
Run: python -m benchmarks.proxy_changes [REQUESTS [CHANGES]]
"""

import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import psutil

from benchmarks.harness import describe_machine, parse_arguments, save_result
from cv_factory.deployment.local.proxy_process import ProxyProcess
from cv_factory.deployment.local.routes import Backend, Routes
from cv_factory.deployment.traffic import Sticky
from cv_factory.processes.polling import poll_until
from cv_factory.processes.ports import LOOPBACK, find_free_port, find_free_ports, is_port_taken

_SHARES = (0.9, 0.5, 0.1, 0.0, 0.5, 1.0)
_STICKY_SHARES, _N_CLIENTS, _N_KILLS = (0.1, 0.3, 0.6), 10_000, 5
#: Streams and WebSockets stay with their version: so many messages, then a new one.
_MESSAGES_PER_STREAM = 200
_METHOD = "/test.Echo/Echo"


def serve(name: str, port: int, grpc_port: int) -> None:
    """Serve what is echoed, and ``/readyz``, in this process."""
    import grpc
    import uvicorn

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "bytes": message["bytes"]})
        elif scope["type"] == "http":
            body = name.encode()
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def echo(requests, context) -> AsyncIterator[bytes]:  # type: ignore[no-untyped-def]
        async for request in requests:
            yield request

    async def run() -> None:
        server = grpc.aio.server()
        handlers = {"Echo": grpc.stream_stream_rpc_method_handler(echo)}
        handler = grpc.method_handlers_generic_handler("test.Echo", handlers)
        server.add_generic_rpc_handlers((handler,))
        server.add_insecure_port(f"{LOOPBACK}:{grpc_port}")
        await server.start()
        config = uvicorn.Config(app, LOOPBACK, port, lifespan="off", log_level="error")
        await uvicorn.Server(config).serve()

    asyncio.run(run())


@dataclass
class Load:
    """Clients on kept connections, until so many requests were sent."""

    port: int
    n_requests: int
    sent: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def is_done(self) -> bool:
        """Whether all requests were sent."""
        return self.sent.total() >= self.n_requests

    async def run(self) -> None:
        """Send the requests of all protocols."""
        clients = [self.http] * 6 + [self.grpc_calls] * 2 + [self.grpc_streams, self.websockets]
        await asyncio.gather(*(self._repeat(client) for client in clients))

    async def _repeat(self, client: Callable[[], Awaitable[None]]) -> None:
        while not self.is_done:
            try:
                await client()
            except Exception as error:  # noqa: BLE001 - whatever it is, a request is lost
                self.lost[f"{client.__name__}: {error!r}"[:200]] += 1

    async def http(self) -> None:
        """Send requests on one HTTP/1.1 connection."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        while not self.is_done:
            await ask(reader, writer, "")
            self.sent["HTTP/1.1"] += 1
        writer.close()

    async def grpc_calls(self) -> None:
        """Send gRPC calls, one request each, on one HTTP/2 connection."""
        import grpc

        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{self.port}") as channel:
            while not self.is_done:
                call = channel.stream_stream(_METHOD)(iter([b"x"]))
                assert [answer async for answer in call] == [b"x"]
                self.sent["HTTP/2 (gRPC calls)"] += 1

    async def grpc_streams(self) -> None:
        """Send messages on gRPC streams."""
        import grpc

        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{self.port}") as channel:
            while not self.is_done:
                stream = channel.stream_stream(_METHOD)()
                for number in range(_MESSAGES_PER_STREAM):
                    await stream.write(b"%d" % number)
                    assert await stream.read() == b"%d" % number
                    self.sent["gRPC stream"] += 1
                await stream.done_writing()
                assert await stream.code() is grpc.StatusCode.OK

    async def websockets(self) -> None:
        """Send messages on a WebSocket."""
        from websockets.asyncio.client import connect

        async with connect(f"ws://{LOOPBACK}:{self.port}/ws", proxy=None) as websocket:
            for number in range(_MESSAGES_PER_STREAM):
                await websocket.send(b"%d" % number)
                assert await websocket.recv() == b"%d" % number
                self.sent["WebSocket"] += 1


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str) -> str:
    """Send a request and return the name of the service that answered."""
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-User: %b\r\n\r\n" % user.encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return (await reader.readexactly(1)).decode()


async def change_routes(
    proxy: ProxyProcess, backends: tuple[Backend, Backend], load: Load, n_changes: int
) -> int:
    """Change the shares, evenly over the requests; return the number of changes."""
    shares = cycle(_SHARES)
    for number in range(n_changes):
        while load.sent.total() < load.n_requests * number / n_changes:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(proxy.set_routes, split(backends, next(shares)), 0.2)
    return n_changes


def split(backends: tuple[Backend, Backend], share: float, sticky: Sticky | None = None) -> Routes:
    """Return the routes that give the second service a share."""
    from dataclasses import replace

    pairs = zip(backends, (1 - share, share), strict=True)
    return Routes(0, tuple(replace(b, weight=w) for b, w in pairs if w > 0), sticky)


async def measure_stickiness(
    proxy: ProxyProcess, backends: tuple[Backend, Backend]
) -> dict[str, object]:
    """Return the share of the clients on the canary at each of its shares, and who left it."""
    reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
    shares: dict[str, float] = {}
    on_canary: set[int] = set()
    n_left = 0
    for share in _STICKY_SHARES:
        proxy.set_routes(split(backends, share, Sticky("header", "X-User")), 1.0)
        answers = [await ask(reader, writer, f"client-{n}") for n in range(_N_CLIENTS)]
        now = {number for number, answer in enumerate(answers) if answer == "b"}
        n_left += len(on_canary - now)
        shares[str(share)] = len(now) / _N_CLIENTS
        on_canary = now
    writer.close()
    return {"shares": shares, "left_the_canary": n_left}


async def measure_restarts(proxy: ProxyProcess) -> list[float]:
    """Kill the proxy again and again, and return the seconds until it answers."""
    seconds = []
    for _ in range(_N_KILLS):
        (envoy,) = psutil.Process(running_pid(proxy)).children()
        envoy.kill()
        begin = time.monotonic()
        is_answered = False
        while not is_answered:
            try:
                reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
                await ask(reader, writer, "")
                is_answered = True
            except OSError:
                await asyncio.sleep(0.002)
        seconds.append(time.monotonic() - begin)
    return seconds


def running_pid(proxy: ProxyProcess) -> int:
    """Return the process id of the proxy's supervisor."""
    process = proxy.running
    if process is None:
        raise RuntimeError("the proxy ended")
    return process.pid


async def measure(folder: Path, n_requests: int, n_changes: int) -> dict[str, object]:
    """Return all figures."""
    ports = find_free_ports(4)
    backends = Backend("a", ports[0], 1.0, ports[2]), Backend("b", ports[1], 1.0, ports[3])
    context = multiprocessing.get_context("spawn")
    servers = [
        context.Process(target=serve, args=(b.name, b.port, b.grpc_port), daemon=True)
        for b in backends
    ]
    for server in servers:
        server.start()
    proxy = ProxyProcess(folder, f"{folder}#front", LOOPBACK, find_free_port())
    try:
        poll_until(lambda: all(is_port_taken(LOOPBACK, port) for port in ports), 60.0)
        proxy.set_routes(split(backends, 0.5), 1.0)
        load = Load(proxy.port, n_requests)
        begin = time.monotonic()
        _, n_changes = await asyncio.gather(
            load.run(), change_routes(proxy, backends, load, n_changes)
        )
        seconds = time.monotonic() - begin
        supervisor = psutil.Process(running_pid(proxy))
        resident = [p.memory_info().rss / 1e6 for p in (supervisor, *supervisor.children())]
        return {
            "seconds": seconds,
            "changes": n_changes,
            "sent": dict(load.sent),
            "lost": dict(load.lost),
            "sticky": await measure_stickiness(proxy, backends),
            "restart_seconds": await measure_restarts(proxy),
            "resident_mb": resident,
        }
    finally:
        proxy.remove(5.0)
        for server in servers:
            server.kill()


def main() -> int:
    """Measure, print and store the result."""
    import json

    n_requests, n_changes = parse_arguments(requests=100_000, changes=200)
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(measure(Path(directory), n_requests, n_changes))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    save_result("proxy_changes", {"machine": describe_machine(), "figures": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
