"""Latency of accepted requests at ten times the load, and how soon a killed worker is replaced.

``wrk`` keeps 320 connections busy, which ask again at once when they are refused; 32 are the load
that the service is made for. 16 clients beside it note how long what is answered 200 takes.
Then 8 clients ask all the time while the worker is killed: those in flight may fail, others wait.
ROUNDS (default 3), SECONDS of load (default 5). Needs wrk (Debian: apt-get install wrk).
Run: python -m benchmarks.serving_overload [ROUNDS [SECONDS]]
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.harness import Spread, describe_machine, parse_arguments, save_result
from benchmarks.serving import OURS, running, server, wrk
from benchmarks.serving_clients import Clients
from benchmarks.serving_models import write_bundle
from cv_factory.config.serving import ServingConfig
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.auth.api_keys import add_key

_LOADS = (32, 320)
_PROBES, _CLIENTS = 16, 8


def main() -> int:
    """Measure, print and store the result."""
    rounds, seconds = parse_arguments(rounds=3, seconds=5)
    figures: dict[int, list[dict[str, float]]] = {load: [] for load in _LOADS}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "resnet18"
        write_bundle("resnet18", folder, ServingConfig())
        key = f"Bearer {add_key(folder / 'keys.json', 'load', ['predict'], None)}"
        port = find_free_port()
        target = server(OURS, folder, port)
        url = f"http://127.0.0.1:{port}{target.path}"
        image, headers = target.body.read_bytes(), {"Authorization": key}
        with running(target, port, headers) as (process, _):
            for number in range(rounds):
                for load in _LOADS if number % 2 == 0 else _LOADS[::-1]:
                    with Clients(url, image, headers, _PROBES).asking() as probes:
                        load_figures = wrk(target, url, key, load, seconds, may_refuse=True)
                    figures[load].append(_summary(probes.seconds(), load_figures))
            recoveries = [
                _recovery(process, Clients(url, image, headers, _CLIENTS)) for _ in range(rounds)
            ]
    report = {
        "machine": describe_machine(),
        "by_connections": figures,
        "recovery_seconds": [seconds for seconds, _ in recoveries],
        "lost_requests": [lost for _, lost in recoveries],
    }
    save_result("serving_overload", report)
    for load, runs in figures.items():
        medians = {k: round(Spread.of([run[k] for run in runs]).median, 1) for k in runs[0]}
        sys.stdout.write(f"{load} connections: {medians}\n")
    back = Spread.of([seconds for seconds, _ in recoveries])
    lost = max(lost for _, lost in recoveries)
    sys.stdout.write(
        f"killed worker: back after {back.median:.1f} s (at most {back.max:.1f}); at most {lost} "
        f"requests of {_CLIENTS} clients lost\n"
    )
    return 0


def _recovery(process: psutil.Process, clients: Clients) -> tuple[float, int]:
    """Kill the worker (SIGKILL) under load; return seconds until the next answer, and losses."""
    family = process.children(recursive=True)
    [worker] = [child for child in family if "_bentoml_impl.worker.service" in child.cmdline()]
    with clients.asking():
        clients.wait_for_answer_after(time.monotonic())
        worker.kill()
        killed = time.monotonic()
        back = clients.wait_for_answer_after(killed) - killed
    return back, clients.lost()


def _summary(seconds: list[float], load_figures: dict[str, float]) -> dict[str, float]:
    percentiles = statistics.quantiles([1000 * t for t in seconds], n=100)
    return {
        "accepted": len(seconds),
        "p50_ms": percentiles[49],
        "p99_ms": percentiles[98],
        "answered_per_second": load_figures["rate"],
        "refused_per_second": load_figures["refused"],
        "late_per_second": load_figures["late"],
    }


if __name__ == "__main__":
    sys.exit(main())
