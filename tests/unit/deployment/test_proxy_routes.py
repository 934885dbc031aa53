"""The proxy's routes: clients that stay with a version, copies, TLS, HTTP/2, gRPC and WebSocket."""

import http.client
import json
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.http11 import Request, Response
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from cv_factory.deployment.local import proxy_process
from cv_factory.deployment.local.envoy_admin import EnvoyAdmin
from cv_factory.deployment.local.metrics import count_requests
from cv_factory.deployment.local.routes import Backend, Routes
from cv_factory.deployment.traffic import Sticky, TlsFiles
from cv_factory.errors import ConfigError
from cv_factory.processes.daemon import DaemonError
from cv_factory.processes.log_rotation import rotate_file
from cv_factory.processes.ports import LOOPBACK, find_free_port, listen
from tests.support.certificates import CertificateAuthority
from tests.support.waiting import wait_until
from tests.unit.deployment.test_proxy import (
    Echo,
    EchoServer,
    RunningProxy,
    accepts_connections,
    running_proxy,
    send_request,
)

#: Of each request to a server: its name and the headers.
_SEEN: list[tuple[str, dict[str, str]]] = []
#: By what a client is known, and the header of client N.
_STICKY = {
    Sticky("header", "X-User"): ("X-User", "user-{}"),
    Sticky("cookie", "session"): ("Cookie", "theme=dark; session=s{}"),
    Sticky("api_key"): ("Authorization", "Bearer key-{}"),
}
_N_CLIENTS = 150
_REQUEST_ID = "5b2ed7a0-0c1e-4b1b-8b57-6e3d6a1f4c21"


class Recorder(Echo):
    """Keeps the headers of all requests with a body."""

    def _body(self) -> bytes:
        name = self.server.name  # type: ignore[attr-defined]
        _SEEN.append((name, {key.lower(): value for key, value in self.headers.items()}))
        return super()._body()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    # Longer than the path of a Unix socket may be.
    with running_proxy(tmp_path_factory.mktemp("proxy") / ("long" * 25)) as running:
        yield running


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[EchoServer, EchoServer]]:
    pair = EchoServer("old", Recorder), EchoServer("new", Recorder)
    yield pair
    for server in pair:
        server.shutdown()


def route(proxy: RunningProxy, *backends: Backend, **settings: Any) -> None:
    proxy.process.set_routes(Routes(backends=backends, **settings), 20)


def send(client: http.client.HTTPConnection, headers: dict[str, str]) -> str:
    """Send a request and return which server answered."""
    client.request("POST", "/predict?key=secret", body=b"image", headers=headers)
    response = client.getresponse()
    assert (response.status, response.read()) == (200, b"image")
    return str(response.headers["X-Server"])


@pytest.mark.slow
def test_no_client_moves_back_while_the_canary_grows(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    old, new = servers
    client = proxy.connect()

    def find_on_canary(name: str, values: list[str]) -> set[str]:
        return {value for value in values if send(client, {name: value}) == "new"}

    for sticky, (name, value) in _STICKY.items():
        before = set[str]()
        clients = [value.format(number) for number in range(_N_CLIENTS)]
        for share in (0.1, 0.4):
            route(proxy, old.backend(1 - share), new.backend(share), sticky=sticky)
            on_canary = find_on_canary(name, clients)
            assert before <= on_canary
            # Five standard deviations of a binomial distribution.
            margin = 5 * (_N_CLIENTS * share * (1 - share)) ** 0.5
            assert abs(len(on_canary) - _N_CLIENTS * share) < margin
            before = on_canary
        assert find_on_canary(name, clients) == before, "each again"
    # The same key in the other header is the same client.
    keys = [value.removeprefix("Bearer ") for value in clients]
    assert {f"Bearer {key}" for key in find_on_canary("X-API-Key", keys)} == before


def test_a_shadow_gets_copies_and_no_one_sees_its_answers(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    shadow = EchoServer("shadow", Recorder)
    copied = replace(shadow.backend(0.0), arm="shadow", mirror_share=1.0)
    route(proxy, servers[0].backend(1.0), copied)
    client = proxy.connect()
    _SEEN.clear()
    forged = {"X-Forwarded-For": "203.0.113.7", "X-Envoy-External-Address": "203.0.113.8"}
    assert {send(client, forged) for _ in range(20)} == {"old"}
    assert send(client, {"X-Request-ID": _REQUEST_ID}) == "old"
    wait_until(lambda: len(_SEEN) == 42)
    requests, copies = (
        {h["x-request-id"]: h["x-forwarded-for"].split(",")[-1] for n, h in _SEEN if n == name}
        for name in ("old", "shadow")
    )
    assert _REQUEST_ID in requests
    assert requests == copies
    assert set(copies.values()) == {"127.0.0.1"}
    shadow.shutdown()
    shadow.server_close()
    assert {send(client, {}) for _ in range(20)} == {"old"}


def test_copies_are_counted_and_what_a_hung_service_never_answers_is_an_error(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    old, new = servers
    query = EnvoyAdmin(proxy.folder).get

    def count(*backends: Backend) -> dict[str, tuple[int, int]]:
        counters = count_requests(Routes(backends=backends), {}, query)
        return {name: (c.sent, c.errors) for name, c in counters.items()}

    shadow = replace(new.backend(0.0), arm="shadow", mirror_share=1.0)
    route(proxy, shadow, old.backend(1.0))
    client = proxy.connect()
    assert {send(client, {}) for _ in range(10)} == {"old"}
    wait_until(lambda: count(shadow)["new"] == (10, 0))
    route(proxy, new.backend(1.0))
    Echo.release.clear()
    try:
        with suppress(TimeoutError), closing(proxy.connect()) as impatient:
            impatient.timeout = 0.2
            impatient.request("POST", "/held", body=b"image")
            impatient.getresponse()
        wait_until(lambda: count(new.backend(1.0))["new"][1] == 1)
    finally:
        Echo.release.set()
    assert send(client, {}) == "new"
    assert count(new.backend(1.0))["new"][1] == 1


@pytest.mark.slow
def test_a_shadow_that_is_gone_or_answers_nothing_is_noticed_by_no_client(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    with listen(LOOPBACK, 0) as silent:
        ports = silent.getsockname()[1], find_free_port()
        shadows = (Backend(str(p), p, 0.0, arm="shadow", mirror_share=1.0) for p in ports)
        route(proxy, servers[0].backend(1.0), *shadows)
        client = proxy.connect()
        # More than the buffers of sockets take, so that a copy could hold it up.
        assert send_request(client, bytes(12 * 2**20), "/predict") == "old"
        assert [send(client, {}) for _ in range(20)] == ["old"] * 20
        # Nor do copies that are never answered keep the routes from being changed.
        route(proxy, servers[0].backend(1.0))
        assert send(client, {}) == "old"


def test_a_renewed_certificate_is_served_and_connections_stay(
    proxy: RunningProxy,
    servers: tuple[EchoServer, EchoServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = CertificateAuthority(tmp_path)
    tls = TlsFiles(*authority.issue())
    route(proxy, servers[0].backend(1.0), tls=tls)
    assert (proxy.folder / "sds.json").stat().st_mode & 0o077 == 0
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2", "http/1.1"])

    def handshake() -> tuple[str | None, bytes | None]:
        address = ("127.0.0.1", proxy.port)
        with ssl_connection(context, address) as connection:
            return connection.selected_alpn_protocol(), connection.getpeercert(binary_form=True)

    protocol, first = handshake()
    assert protocol == "h2"
    old = ssl.create_default_context(cafile=str(authority.file))
    kept = http.client.HTTPSConnection("127.0.0.1", proxy.port, context=old, timeout=20)
    assert send(kept, {}) == "old"
    with pytest.raises(ConfigError, match="gone cannot be read"):
        route(proxy, servers[1].backend(1.0), tls=replace(tls, key=tmp_path / "gone"))
    assert send(kept, {}) == "old"
    tls.key.write_text("damaged")
    route(proxy, servers[1].backend(1.0), tls=tls)
    assert send(kept, {}) == "new"
    assert handshake()[1] == first
    authority.issue()
    wait_until(lambda: handshake()[1] != first)
    assert send(kept, {}) == "new"
    (proxy.folder / "sds.json").write_text("damaged")
    (envoy,) = proxy.supervisor.children()
    envoy.kill()
    psutil.wait_procs([envoy])
    wait_until(lambda: accepts_connections(proxy.port))
    second = handshake()[1]
    assert second not in (None, first)
    unusable = TlsFiles(*authority.issue("koblitz", ec.SECP256K1()))
    with monkeypatch.context() as patch:
        patch.setattr(proxy_process, "_CHECK_TIMEOUT_S", 0.2)
        with pytest.raises(DaemonError, match=r"does not take the certificate .*koblitz\.pem"):
            route(proxy, servers[1].backend(1.0), tls=unusable)
    assert handshake()[1] == second
    route(proxy, servers[0].backend(1.0))
    assert send(proxy.connect(), {}) == "old"
    assert not (proxy.folder / "sds.json").exists(), "the key is not left behind"
    with monkeypatch.context() as patch:
        patch.setattr(proxy_process, "_REACTION_TIMEOUT_S", 0.5)
        with pytest.raises(DaemonError, match="Failed to load certificate chain"):
            route(proxy, servers[0].backend(1.0), tls=unusable)
    route(proxy, servers[1].backend(1.0))
    assert send(proxy.connect(), {}) == "new"


def ssl_connection(context: ssl.SSLContext, address: tuple[str, int]) -> ssl.SSLSocket:
    client = socket.create_connection(address, timeout=20)
    return context.wrap_socket(client, server_hostname=address[0])


def test_grpc_streams_and_websockets_pass_and_outlive_a_change(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    with grpc_server("old") as old, grpc_server("new") as new, websocket_server() as port:
        route(proxy, Backend("old", port, 1.0, old))
        with (
            grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel,
            connect(f"ws://127.0.0.1:{proxy.port}/ws", proxy=None) as websocket,
        ):
            more = threading.Event()
            answers = stream(channel, more)
            assert next(answers) == b"old 1"
            second = replace(servers[1].backend(1.0), grpc_port=new)
            change = threading.Thread(target=route, args=(proxy, second))
            change.start()
            wait_until(lambda: unary(channel) == b"new x")
            assert _SEEN[-1][1]["x-forwarded-for"] == "203.0.113.7,127.0.0.1"
            websocket.send(b"still here")
            assert websocket.recv(timeout=20) == b"still here"
            more.set()
            assert list(answers) == [b"old 2"]
            websocket.close()
            change.join()
            route(proxy, replace(second, grpc_port=None))
            with pytest.raises(grpc.RpcError) as refused:
                unary(channel)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def stream(channel: grpc.Channel, more: threading.Event) -> Iterator[bytes]:
    def requests() -> Iterator[bytes]:
        yield b"1"
        more.wait(20)
        yield b"2"

    return iter(channel.stream_stream("/test.Echo/Echo")(requests(), timeout=20))


def unary(channel: grpc.Channel) -> bytes:
    forged = (("x-forwarded-for", "203.0.113.7"),)
    call = channel.stream_stream("/test.Echo/Echo")
    return b"".join(call(iter([b"x"]), timeout=20, metadata=forged))


@contextmanager
def grpc_server(name: str) -> Iterator[int]:
    """Serve gRPC that answers each message with the name and the message; yield the port."""

    def echo(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        _SEEN.append((name, {key: str(value) for key, value in context.invocation_metadata()}))
        for request in requests:
            yield name.encode() + b" " + request

    methods = {"Echo": grpc.stream_stream_rpc_method_handler(echo)}
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None)


@contextmanager
def websocket_server() -> Iterator[int]:
    """Serve WebSockets that get back what they sent, and health checks; yield the port."""

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    def answer_checks(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(200, "") if request.path == "/readyz" else None

    with serve(echo, "127.0.0.1", 0, process_request=answer_checks) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.socket.getsockname()[1]


def test_the_access_log_has_no_secret_and_is_rotated(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    route(proxy, servers[0].backend(1.0))
    client, log = proxy.connect(), proxy.folder / "access.log"
    headers = {"Authorization": "Bearer secret", "X-API-Key": "secret", "X-Request-ID": "logged"}
    assert send(client, headers) == "old"
    wait_until(lambda: '"logged"' in log.read_text())
    entry = next(e for e in map(json.loads, log.read_text().splitlines()) if "logged" in e.values())
    assert (entry["path"], entry["status"], entry["address"]) == ("/predict", 200, "127.0.0.1")
    assert "secret" not in log.read_text()
    (envoy,) = proxy.supervisor.children()
    assert rotate_file(log, max_bytes=1, max_files=2)
    envoy.send_signal(signal.SIGUSR1)
    wait_until(log.exists)
    assert "logged" in log.with_name("access.log.1").read_text()
