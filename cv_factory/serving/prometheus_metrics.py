"""What Prometheus is told: requests, refusals, predictions, batches and what waits."""

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from cv_factory.serving.service_environment import METRICS_VARIABLE

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The figures of one application, in a registry of their own."""

    def __init__(self, model: str, version: str) -> None:
        """Start at zero."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "cv_factory_requests", "Requests", ("route", "status"), registry=registry
        )
        self._problems = Counter(
            "cv_factory_problems", "Requests that got no answer", ("kind",), registry=registry
        )
        self._seconds = Histogram(
            "cv_factory_request_seconds", "Of one request", ("route",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._predictions = Counter(
            "cv_factory_predictions", "Images by label", ("label",), registry=registry
        )
        self._batches = Histogram(
            "cv_factory_batch_images", "Images in one run of the graph",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), registry=registry,
        )  # fmt: skip
        self._cache = Counter(
            "cv_factory_cache_lookups", "Requests looked up in the cache", ("found",),
            registry=registry,
        )  # fmt: skip
        self._queue = Gauge(
            "cv_factory_queue_images", "Images that wait",
            registry=registry, multiprocess_mode="mostrecent",
        )  # fmt: skip
        self._dropped = Gauge(
            "cv_factory_log_dropped", "Log lines that were dropped",
            registry=registry, multiprocess_mode="mostrecent",
        )  # fmt: skip
        Gauge(
            "cv_factory_model", "What is served", ("model", "version"),
            registry=registry, multiprocess_mode="max",
        ).labels(model, version).set(1)  # fmt: skip

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def problem(self, kind: str) -> None:
        """Count a request that got no answer."""
        self._problems.labels(kind).inc()

    def prediction(self, label: str | None) -> None:
        """Count an answer."""
        self._predictions.labels(label if label is not None else "(none)").inc()

    def batch(self, images: int) -> None:
        """Count a run of the graph."""
        self._batches.observe(images)

    def cache_lookup(self, found: bool) -> None:
        """Count a request that was looked up in the cache of answers."""
        self._cache.labels(str(found).lower()).inc()

    def text(self, *, queue: int, dropped: int) -> bytes:
        """Return everything in Prometheus' text format; of all workers where there are several.

        Args:
            queue: Images that wait now.
            dropped: Log lines that were dropped so far.
        """
        self._queue.set(queue)
        self._dropped.set(dropped)
        if METRICS_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
