"""Prometheus metrics of the service: requests, problems, predictions, batches and queues."""

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from cv_factory.serving.service_environment import METRICS_VARIABLE

#: Upper bounds of the durations of requests that are counted together.
REQUEST_SECONDS_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SAMPLE_INTERVAL_S = 1.0


class ServiceMetrics:
    """Metrics of one application, in a registry of its own."""

    def __init__(
        self, model: str, version: str, *, has_familiarity: bool = False, workers: int = 1
    ) -> None:
        """Register the metrics at zero.

        Args:
            model: Name of the registered model.
            version: Its version.
            has_familiarity: Whether unfamiliar images are recognized, and so counted.
            workers: Configured number of worker processes.
        """
        self._registry = registry = CollectorRegistry()
        # Looked up with each request: the cache is faster than the search for the labels' child.
        self._requests = cache(Counter(
            "cv_factory_requests", "Requests", ("route", "status"), registry=registry
        ).labels)  # fmt: skip
        self._problems = Counter(
            "cv_factory_problems", "Requests answered with a problem", ("kind",), registry=registry
        )
        self._seconds = cache(Histogram(
            "cv_factory_request_seconds", "Duration of a request", ("route",),
            buckets=REQUEST_SECONDS_BUCKETS, registry=registry,
        ).labels)  # fmt: skip
        self._predictions = cache(Counter(
            "cv_factory_predictions", "Predicted images by label", ("label",), registry=registry
        ).labels)  # fmt: skip
        self._unfamiliar = (
            Counter(
                "cv_factory_unfamiliar_images", "Predicted images unlike the training images",
                registry=registry,
            )
            if has_familiarity
            else None
        )  # fmt: skip
        self._batches = Histogram(
            "cv_factory_batch_images", "Images in one run of the graph",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), registry=registry,
        )  # fmt: skip
        self._cache_lookups = Counter(
            "cv_factory_cache_lookups", "Requests looked up in the response cache", ("found",),
            registry=registry,
        )  # fmt: skip
        self._queue = Gauge(
            "cv_factory_queue_images", "Images waiting in the queues of all workers",
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self._connections = Gauge(
            "cv_factory_websocket_connections", "Open WebSocket connections of all workers",
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self._labels = Counter("cv_factory_labels", "Labels received", registry=registry)
        self._dropped = Counter("cv_factory_log_dropped", "Log lines dropped", registry=registry)
        self._is_closing = threading.Event()
        _register_constants(registry, model, version, workers)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request and its duration."""
        self._requests(route, status).inc()
        self._seconds(route).observe(seconds)

    def count_problem(self, kind: str) -> None:
        """Count a request answered with a problem."""
        self._problems.labels(kind).inc()

    def count_prediction(self, label: str | None, is_unfamiliar: bool | None) -> None:
        """Count a predicted image; a label of None is an abstention."""
        self._predictions(label if label is not None else "(none)").inc()
        if self._unfamiliar is not None and is_unfamiliar:
            self._unfamiliar.inc()

    def observe_batch(self, n_images: int) -> None:
        """Count a run of the graph and its images."""
        self._batches.observe(n_images)

    def count_cache_lookup(self, is_hit: bool) -> None:
        """Count a lookup in the response cache."""
        self._cache_lookups.labels(str(is_hit).lower()).inc()

    def track_connection(self) -> AbstractContextManager[None]:
        """Count a WebSocket connection as open during a block."""
        return self._connections.track_inprogress()

    def count_dropped(self, n: int) -> None:
        """Count log lines that are lost."""
        self._dropped.inc(n)

    def count_labels(self, n: int) -> None:
        """Count labels of predictions that were received and stored."""
        self._labels.inc(n)

    def start_sampling(self, queue_length: Callable[[], int]) -> None:
        """Update the queue's gauge once a second, in a thread: any worker may answer for all."""

        def sample() -> None:
            while not self._is_closing.wait(_SAMPLE_INTERVAL_S):
                self._queue.set(queue_length())

        threading.Thread(target=sample, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop sampling."""
        self._is_closing.set()

    def render(self, *, queue: int) -> bytes:
        """Return all metrics in Prometheus' text format, of all workers if there are several.

        Args:
            queue: Present queue length of this worker in images.
        """
        self._queue.set(queue)
        if METRICS_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        _remove_gauges_of_dead_workers(Path(os.environ[METRICS_VARIABLE]))
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _register_constants(
    registry: CollectorRegistry, model: str, version: str, workers: int
) -> None:
    """Register what does not change while a worker lives."""
    Gauge(
        "cv_factory_workers", "Workers that answer requests",
        registry=registry, multiprocess_mode="livesum",
    ).set(1)  # fmt: skip
    Gauge(
        "cv_factory_workers_configured", "Workers that should answer requests",
        registry=registry, multiprocess_mode="max",
    ).set(workers)  # fmt: skip
    Gauge(
        "cv_factory_model", "Served model", ("model", "version"),
        registry=registry, multiprocess_mode="max",
    ).labels(model, version).set(1)  # fmt: skip


def _remove_gauges_of_dead_workers(folder: Path) -> None:
    """Remove what workers that were killed left; their counters stay in the sums."""
    import psutil

    for file in folder.glob("gauge_live*.db"):
        if not psutil.pid_exists(int(file.stem.rpartition("_")[2])):
            file.unlink(missing_ok=True)
