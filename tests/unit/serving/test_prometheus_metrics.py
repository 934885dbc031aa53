"""Figures of several workers, of which one has been killed, in one scrape."""

import subprocess
import sys
from pathlib import Path

from cv_factory.serving.service_environment import METRICS_VARIABLE
from tests.support.paths import ROOT

_WORKER = """
import os, sys
from cv_factory.serving.prometheus_metrics import ServiceMetrics
dropped, queue = int(sys.argv[1]), int(sys.argv[2])
metrics = ServiceMetrics("digits", "7", workers=2)
metrics.count_dropped(dropped)
metrics.count_prediction("3", None)
print(metrics.render(queue=queue).decode(), flush=True)
sys.stdin.read()
"""


def start_worker(folder: Path, dropped: int, queue: int) -> "subprocess.Popen[str]":
    """Start a process with metrics; it renders them once and waits for the end of its input."""
    return subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(dropped), str(queue)],
        cwd=ROOT,
        env={METRICS_VARIABLE: str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_metrics(worker: "subprocess.Popen[str]") -> dict[str, float]:
    """Return the metrics that a worker renders."""
    assert worker.stdout is not None
    values = {}
    for line in iter(worker.stdout.readline, "\n"):
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    return values


def test_figures_are_those_of_all_workers_and_a_dead_one_leaves_its_counts(tmp_path: Path) -> None:
    first = start_worker(tmp_path, dropped=30, queue=5)
    read_metrics(first)
    second = start_worker(tmp_path, dropped=10, queue=2)
    both = read_metrics(second)
    first.kill()
    first.communicate()
    third = start_worker(tmp_path, dropped=0, queue=1)
    after = read_metrics(third)
    for worker in (second, third):
        worker.communicate("")
    for values in (both, after):
        assert values["cv_factory_log_dropped_total"] == 40
        assert values["cv_factory_workers_configured"] == 2
        assert values["cv_factory_workers"] == 2
    assert both["cv_factory_queue_images"] == 7
    assert after["cv_factory_queue_images"] == 3
    assert after['cv_factory_predictions_total{label="3"}'] == 3
