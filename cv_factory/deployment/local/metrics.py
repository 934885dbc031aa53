"""Metrics of a model: those of its services and of its proxy, together for one scrape.

Each service's metrics get the labels ``model``, ``version`` and ``arm``, so that nothing depends on
which service a scrape would be routed to. Who may read them, the services decide.
"""

import json
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from cv_factory.deployment.local.routes import Backend, Routes
from cv_factory.processes.ports import LOOPBACK
from cv_factory.serving.service_counters import ServiceCounters, parse_counters

#: Headers of a scrape that the services see: who asks, from where, under which request id.
_PASSED_ON = ("authorization", "x-api-key", "x-forwarded-for", "x-request-id")
_TIMEOUT_S = 4.0
#: Statistics of Envoy about clients, and the days that the certificate is still valid.
_PROXY_STATISTICS = r"^http\.clients\.downstream_(rq|cx)_|days_until_first_cert_expiring$"
_NO_CERTIFICATE = 2**32 - 1


class Response(NamedTuple):
    """Answer to a scrape."""

    status: int
    headers: dict[str, str]
    body: bytes


def scrape_model(
    routes: Routes, model: str, headers: Mapping[str, str], query_envoy: Callable[[str], str]
) -> Response:
    """Return the metrics of all services of a model and of its proxy.

    A service that does not answer has ``cv_factory_service_up`` 0. The answer is that of a service
    that refuses it, and 503 where none answers: nobody could say whether it may be given.

    Args:
        routes: The services.
        model: Name of the registered model.
        headers: Of the scrape.
        query_envoy: Returns what Envoy's administration interface answers to a path.
    """
    passed_on = {name: headers[name] for name in _PASSED_ON if name in headers}
    answers = {backend: _scrape_service(backend, passed_on) for backend in routes.backends}
    for answer in answers.values():
        if answer is not None and answer.status in (401, 403):
            return answer
    texts = {
        backend: answer.body.decode()
        for backend, answer in answers.items()
        if answer is not None and answer.status == 200
    }
    if not texts:
        return _unavailable()
    metrics: dict[str, Metric] = {}
    for backend, text in texts.items():
        _add(metrics, text_string_to_metric_families(text), _labels(model, backend))
    _add(metrics, _service_states(model, routes.backends, texts.keys()), {})
    forwarded = _forwarded_requests(model, routes.backends, _clusters(query_envoy))
    _add(metrics, forwarded, {})
    statistics = query_envoy(f"/stats/prometheus?usedonly&filter={_PROXY_STATISTICS}")
    _add(metrics, _without_missing_certificate(statistics), {"model": model})
    return Response(200, {"Content-Type": CONTENT_TYPE_LATEST}, _render(metrics.values()))


def count_requests(
    routes: Routes, keys: Mapping[Backend, str | None], query_envoy: Callable[[str], str]
) -> dict[str, ServiceCounters]:
    """Return what each service and the proxy have counted, by the name of the service.

    Args:
        routes: The services.
        keys: Of those that ask for one.
        query_envoy: Returns what Envoy's administration interface answers to a path.
    """
    sent, errors = Counter[str](), Counter[str]()
    for backend, _, values in _host_statistics(routes.backends, _clusters(query_envoy)):
        names = ("rq_total", "rq_success", "rq_active", "rq_error")
        total, success, active, failed = (int(values.get(name, 0)) for name in names)
        sent[backend.name] += total
        # Clients give up on a service that hangs: those are neither answered nor under way.
        errors[backend.name] += max(failed, total - success - active)
    counters = {}
    for backend in routes.backends:
        key = keys.get(backend)
        answer = _scrape_service(backend, {"x-api-key": key} if key else {})
        metrics = None
        if answer is not None and answer.status == 200:
            metrics = answer.body.decode()
        counters[backend.name] = parse_counters(metrics, sent[backend.name], errors[backend.name])
    return counters


def _clusters(query_envoy: Callable[[str], str]) -> Any:
    return json.loads(query_envoy("/clusters?format=json"))["cluster_statuses"]


def _scrape_service(backend: Backend, headers: Mapping[str, str]) -> Response | None:
    """Return the answer of a service; None where there is none."""
    with closing(HTTPConnection(LOOPBACK, backend.port, timeout=_TIMEOUT_S)) as connection:
        try:
            connection.request("GET", "/metrics", headers=dict(headers))
            response = connection.getresponse()
            body = response.read()
        except (OSError, HTTPException):
            return None
        kept = ("Content-Type", "WWW-Authenticate")
        shown = {name: value for name in kept if (value := response.headers[name]) is not None}
        return Response(response.status, shown, body)


def _labels(model: str, backend: Backend) -> dict[str, str]:
    return {"model": model, "version": backend.version, "arm": backend.arm}


def _service_states(
    model: str, backends: Iterable[Backend], answering: Collection[Backend]
) -> Iterator[Metric]:
    up = Metric("cv_factory_service_up", "Whether a service answers", "gauge")
    for backend in backends:
        up.add_sample(up.name, _labels(model, backend), float(backend in answering))
    yield up


def _forwarded_requests(
    model: str, backends: Iterable[Backend], clusters: Iterable[Mapping[str, Any]]
) -> Iterable[Metric]:
    """Return what the proxy has sent to each service, as Envoy counts it by address."""
    metrics = {
        ("rq_total", "_total"): Metric(
            "cv_factory_proxy_requests", "Requests or copies sent to a service", "counter"
        ),
        ("rq_error", "_total"): Metric(
            "cv_factory_proxy_errors", "Those answered with 5xx, or not at all", "counter"
        ),
        ("rq_active", ""): Metric("cv_factory_proxy_in_flight", "Those not answered yet", "gauge"),
    }
    for backend, protocol, values in _host_statistics(backends, clusters):
        labels = {**_labels(model, backend), "protocol": protocol}
        for (statistic, suffix), metric in metrics.items():
            metric.add_sample(metric.name + suffix, labels, values.get(statistic, 0.0))
    return metrics.values()


def _host_statistics(
    backends: Iterable[Backend], clusters: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Backend, str, dict[str, float]]]:
    """Yield Envoy's statistics of each service, by protocol."""
    by_port = {b.port: (b, "http") for b in backends} | {b.grpc_port: (b, "grpc") for b in backends}
    for host in (host for cluster in clusters for host in cluster.get("host_statuses", ())):
        port = host["address"].get("socket_address", {}).get("port_value")
        if port is not None and port in by_port:
            statistics = {s["name"]: float(s.get("value", 0)) for s in host["stats"]}
            yield *by_port[port], statistics


def _without_missing_certificate(text: str) -> Iterator[Metric]:
    """Yield Envoy's statistics, without the validity of a certificate that there is not."""
    for metric in text_string_to_metric_families(text):
        if all(sample.value != _NO_CERTIFICATE for sample in metric.samples):
            yield metric


def _add(metrics: dict[str, Metric], more: Iterable[Metric], labels: Mapping[str, str]) -> None:
    """Add metrics with further labels; those of one name become one metric."""
    for metric in more:
        merged = Metric(metric.name, metric.documentation, metric.type)
        metrics.setdefault(metric.name, merged).samples += [
            sample._replace(labels={**sample.labels, **labels}) for sample in metric.samples
        ]


def _render(metrics: Iterable[Metric]) -> bytes:
    class Collected:
        def collect(self) -> Iterable[Metric]:
            return metrics

    registry = CollectorRegistry()
    registry.register(Collected())
    return generate_latest(registry)


def _unavailable() -> Response:
    problem = {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "No service of this model answers, and they decide who may read its metrics.",
    }
    headers = {"Content-Type": "application/problem+json", "Retry-After": "1"}
    return Response(503, headers, json.dumps(problem).encode())


class MetricsServer(socketserver.ThreadingUnixStreamServer):
    """HTTP server on a Unix socket, behind the proxy, that answers each request with a scrape."""

    daemon_threads = True

    def __init__(self, path: Path, scrape: Callable[[Mapping[str, str]], Response]) -> None:
        """Listen, and answer in a thread until the process ends.

        Args:
            path: Of the socket; one that is there is replaced.
            scrape: Called with the headers of each request, by lower-case name.
        """
        path.unlink(missing_ok=True)
        self.scrape = scrape
        super().__init__(str(path), _Handler)
        threading.Thread(target=self.serve_forever, name="metrics", daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: MetricsServer

    def do_GET(self) -> None:
        """Answer a scrape."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        response = self.server.scrape(headers)
        self.send_response(response.status)
        for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the proxy and the services log the request."""
