"""Sticky clients and shadows, through a real proxy."""

import http.client
from pathlib import Path

import pytest

from cv_factory.deployment.local.routes import Backend, Routes
from cv_factory.deployment.traffic import Sticky
from cv_factory.processes.ports import LOOPBACK, find_free_port, listen
from tests.unit.deployment.test_proxy import EchoServer, running_proxy, send_request

pytestmark = pytest.mark.slow

N_CLIENTS = 150
#: By what a client is known, and the header of client N.
STICKY = {
    Sticky("header", "X-User"): ("X-User", "user-{}"),
    Sticky("cookie", "session"): ("Cookie", "theme=dark; session=s{}"),
    Sticky("api_key"): ("Authorization", "Bearer key-{}"),
}


def test_no_client_moves_back_while_the_canary_grows(tmp_path: Path) -> None:
    servers = EchoServer("stable"), EchoServer("canary")
    try:
        with running_proxy(tmp_path / "front") as proxy:
            for sticky, (name, value) in STICKY.items():
                before = set[str]()
                for share in (0.1, 0.4):
                    backends = (servers[0].backend(1.0 - share), canary(servers[1], share))
                    proxy.process.set_routes(Routes(backends=backends, sticky=sticky), 20)
                    clients = [value.format(number) for number in range(N_CLIENTS)]
                    on_canary = find_on_canary(proxy.connect(), name, clients)
                    assert before <= on_canary
                    # Five standard deviations of a binomial distribution.
                    margin = 5 * (N_CLIENTS * share * (1 - share)) ** 0.5
                    assert abs(len(on_canary) - N_CLIENTS * share) < margin
                    before = on_canary
                assert find_on_canary(proxy.connect(), name, clients) == before, "each again"
            # The same key in the other header is the same client.
            keys = [client.removeprefix("Bearer ") for client in clients]
            same = {f"Bearer {key}" for key in find_on_canary(proxy.connect(), "X-API-Key", keys)}
            assert same == before
    finally:
        for server in servers:
            server.shutdown()


def test_a_shadow_that_is_gone_or_answers_nothing_is_noticed_by_no_client(tmp_path: Path) -> None:
    server = EchoServer("stable")
    try:
        with running_proxy(tmp_path / "front") as proxy, listen(LOOPBACK, 0) as silent:
            ports = silent.getsockname()[1], find_free_port()
            shadows = (Backend(str(p), p, 0.0, arm="shadow", mirror_share=1.0) for p in ports)
            proxy.route(server.backend(1.0), *shadows)
            client = proxy.connect()
            assert [send_request(client, path="/predict") for _ in range(20)] == ["stable"] * 20
            # Nor do copies that are never answered keep a version from being replaced.
            proxy.route(server.backend(1.0))
            assert send_request(client) == "stable"
    finally:
        server.shutdown()


def canary(server: EchoServer, share: float) -> Backend:
    return Backend(server.name, server.server_port, share, arm="canary")


def find_on_canary(
    connection: http.client.HTTPConnection, name: str, clients: list[str]
) -> set[str]:
    """Return the clients whom the canary answers."""
    on_canary = set[str]()
    for client in clients:
        connection.request("GET", "/", headers={name: client})
        response = connection.getresponse()
        response.read()
        if response.headers["X-Server"] == "canary":
            on_canary.add(client)
    connection.close()
    return on_canary
