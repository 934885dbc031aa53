"""One scrape for a model: all of its services and the proxy, for those whom the services let."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cv_factory.deployment.local.metrics import (
    MetricsServer,
    Response,
    count_requests,
    scrape_model,
)
from cv_factory.deployment.local.routes import Backend, Routes
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.prometheus_metrics import ServiceMetrics

#: What Envoy 1.40 answers, cut to what is read.
STATISTICS = """# TYPE envoy_http_downstream_rq_xx counter
envoy_http_downstream_rq_xx{envoy_response_code_class="5"} 2
# TYPE envoy_server_days_until_first_cert_expiring gauge
envoy_server_days_until_first_cert_expiring{} 4294967295
"""


class FakeService(ThreadingHTTPServer):
    """Answers ``/metrics`` as a service does, to all or to the holder of one key."""

    daemon_threads = True

    def __init__(self, version: str, key: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = key
        self.addresses: list[str | None] = []
        self.metrics = ServiceMetrics("digits", version)
        self.metrics.observe_request("/predict", 200, 0.01)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: FakeService

    def do_GET(self) -> None:
        self.server.addresses.append(self.headers["X-Forwarded-For"])
        is_refused = self.server.key not in (None, self.headers["X-API-Key"])
        self.send_response(401 if is_refused else 200)
        self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(b"{}" if is_refused else self.server.metrics.render(queue=0))

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running(*services: FakeService) -> Iterator[tuple[FakeService, ...]]:
    try:
        yield services
    finally:
        for service in services:
            service.shutdown()
            service.server_close()


def routes(*backends: Backend) -> Routes:
    return Routes(backends=backends)


def envoy(*ports: int) -> dict[str, str]:
    """Return what Envoy answers, by path: seven requests were sent to each port."""
    hosts = [
        {
            "address": {"socket_address": {"port_value": port}},
            "stats": [
                {"name": "rq_total", "value": "7"},
                {"name": "rq_success", "value": "5"},
                {"name": "rq_error"},
                {"name": "rq_active"},
            ],
        }
        for port in ports
    ]
    clusters = {"cluster_statuses": [{"name": "http", "host_statuses": hosts}, {"name": "metrics"}]}
    return {"/clusters?format=json": json.dumps(clusters)}


def scrape(backends: Routes, headers: dict[str, str] | None = None) -> Response:
    answers = envoy(*(backend.port for backend in backends.backends))
    return scrape_model(backends, "digits", headers or {}, lambda p: answers.get(p, STATISTICS))


def samples(response: Response) -> dict[tuple[str, str | None], float]:
    """Return the values by name and version; each metric may be described once only."""
    assert response.status == 200
    text = response.body.decode()
    described = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(described) == len(set(described))
    families = text_string_to_metric_families(text)
    labelled = [sample for family in families for sample in family.samples]
    assert {sample.labels["model"] for sample in labelled} == {"digits"}
    return {(s.name, s.labels.get("version")): s.value for s in labelled}


def test_all_versions_and_the_proxy_are_in_one_scrape() -> None:
    with running(FakeService("1"), FakeService("2")) as (one, two):
        gone = find_free_port()
        response = scrape(
            routes(
                Backend("a", one.server_port, 0.9, version="1"),
                Backend("b", two.server_port, 0.1, find_free_port(), "2", "canary"),
                Backend("c", gone, 0.0, None, "3", "shadow", 0.5),
            ),
            {"x-forwarded-for": "192.0.2.1"},
        )
    values = samples(response)
    for version in ("1", "2"):
        assert values["cv_factory_requests_total", version] == 1
        assert values["cv_factory_request_seconds_count", version] == 1
        assert values["cv_factory_service_up", version] == 1
    assert values["cv_factory_service_up", "3"] == 0
    assert [values["cv_factory_proxy_requests_total", version] for version in "123"] == [7, 7, 7]
    assert values["envoy_http_downstream_rq_xx_total", None] == 2
    assert ("envoy_server_days_until_first_cert_expiring", None) not in values
    assert 'arm="canary",model="digits",protocol="http",version="2"' in response.body.decode()
    assert one.addresses == two.addresses == ["192.0.2.1"]


def test_a_service_that_protects_its_metrics_decides_for_all() -> None:
    with running(FakeService("1"), FakeService("2", key="secret")) as (open_one, protected):
        backends = routes(
            Backend("a", open_one.server_port, 0.9, version="1"),
            Backend("b", protected.server_port, 0.1, version="2"),
        )
        refused = scrape(backends, {"x-api-key": "wrong"})
        allowed = scrape(backends, {"x-api-key": "secret", "cookie": "not passed on"})
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert b"cv_factory" not in refused.body
    assert samples(allowed)["cv_factory_requests_total", "2"] == 1


def test_a_rollout_is_given_what_each_service_that_answers_has_counted() -> None:
    with running(FakeService("1"), FakeService("2", key="secret")) as (one, protected):
        one.metrics.observe_request("/predict", 503, 0.2)
        open_one = Backend("a", one.server_port, 0.5, find_free_port(), "1")
        with_key = Backend("b", protected.server_port, 0.5, version="2")
        without_key = Backend("c", protected.server_port, 0.0, version="2")
        gone = Backend("d", find_free_port(), 0.0, version="3")
        answers = envoy(one.server_port, open_one.grpc_port, protected.server_port)
        counted = count_requests(
            routes(open_one, with_key, without_key, gone),
            {with_key: "secret", without_key: None},
            lambda path: answers[path],
        )
    assert [n for n, c in counted.items() if c.is_complete] == ["a", "b"]
    first = counted["a"]
    assert (first.answered, first.server_errors, first.sent, first.errors) == (2, 1, 14, 4)
    assert (first.slower[0], first.slower[-1]) == (2, 0)


def test_nothing_is_shown_where_no_service_says_who_may_see_it() -> None:
    response = scrape(routes(Backend("a", find_free_port(), 1.0, version="1")))
    assert response.status == 503
    assert json.loads(response.body)["title"] == "Service Unavailable"
    assert scrape(routes()).status == 503


def test_the_scrape_is_answered_on_a_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket may have 107 bytes
    path = Path("metrics.sock")
    path.touch()
    seen = list[Mapping[str, str]]()

    def answer(headers: Mapping[str, str]) -> Response:
        seen.append(headers)
        return Response(200, {"Content-Type": "text/plain"}, b"up 1\n")

    server = MetricsServer(path, answer)
    try:
        connection = HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        for _ in range(2):
            connection.request("GET", "/metrics", headers={"X-API-Key": "k"})
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"up 1\n")
        connection.close()
    finally:
        server.shutdown()
        server.server_close()
    assert [headers["x-api-key"] for headers in seen] == ["k", "k"]
