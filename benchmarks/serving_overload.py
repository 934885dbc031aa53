"""Latency of accepted requests at ten times the load, and how soon a killed worker is replaced.

``wrk`` keeps 320 connections busy, which never wait when they are refused; 32 are the load that the
service is made for. A client of its own notes how long the requests take that are answered 200.
Then 8 clients ask all the time while the worker is killed: those in flight may fail, others wait.
ROUNDS (default 3), SECONDS of load (default 5). Needs wrk (Debian: apt-get install wrk).
Run: python -m benchmarks.serving_overload [ROUNDS [SECONDS]]
"""

import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.harness import RESULTS, Spread, describe_machine
from benchmarks.serving import OURS, Server, free_port, running, server, wrk
from benchmarks.serving_models import write_bundle
from cv_factory.config_serving import ServingConfig
from cv_factory.serving.guards.keys import add_key

_LOADS = (32, 320)
_CLIENTS = 8


@dataclass
class Asked:
    """What clients noticed: seconds of each answer (not refusal), and requests that were lost."""

    seconds: list[float] = field(default_factory=list)
    lost: int = 0


@contextmanager
def asking(url: str, body: bytes, key: str, clients: int = 1) -> Iterator[Asked]:
    """Let some clients ask all the time while the block runs."""
    asked, enough = Asked(), threading.Event()
    headers = {"Authorization": key, "Content-Type": "image/png"}

    def ask() -> None:
        with httpx.Client(headers=headers, timeout=60) as client:
            while not enough.is_set():
                begun = time.perf_counter()
                try:
                    response = client.post(url, content=body)
                except httpx.TransportError:
                    asked.lost += 1
                    continue
                if response.status_code == httpx.codes.OK:
                    asked.seconds.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def main() -> int:
    """Measure, print and store the result."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    figures: dict[int, list[dict[str, float]]] = {load: [] for load in _LOADS}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "resnet18"
        write_bundle("resnet18", folder, ServingConfig())
        key = f"Bearer {add_key(folder / 'keys.json', 'load', ['predict'], None)}"
        port = free_port()
        chosen = server(OURS, folder, port)
        url = f"http://127.0.0.1:{port}{chosen.path}"
        with running(chosen, port, {"Authorization": key}) as (process, _):
            for number in range(rounds):
                for load in _LOADS if number % 2 == 0 else _LOADS[::-1]:
                    with asking(url, chosen.body.read_bytes(), key) as asked:
                        found = wrk(chosen, url, key, load, seconds, may_refuse=True)
                    figures[load].append(_summary(asked.seconds, found))
            recoveries = [_recovery(process, url, chosen, key) for _ in range(rounds)]
    report = {
        "machine": describe_machine(),
        "by_connections": figures,
        "recovery_seconds": [seconds for seconds, _ in recoveries],
        "lost_requests": [lost for _, lost in recoveries],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2) + "\n"
    (RESULTS / "serving_overload.json").write_text(text, encoding="utf-8")
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


def _recovery(process: psutil.Process, url: str, chosen: Server, key: str) -> tuple[float, int]:
    """Kill the worker (SIGKILL) under load; return seconds until the next answer, and losses."""
    family = process.children(recursive=True)
    [worker] = [child for child in family if "_bentoml_impl.worker.service" in child.cmdline()]
    body = chosen.body.read_bytes()
    headers = {"Authorization": key, "Content-Type": "image/png"}
    with asking(url, body, key, _CLIENTS) as asked:
        while not asked.seconds:
            time.sleep(0.01)
        worker.kill()
        begun = time.perf_counter()
        while True:
            try:
                response = httpx.post(url, content=body, headers=headers, timeout=60)
            except httpx.HTTPError:
                continue
            if response.status_code == httpx.codes.OK:
                return time.perf_counter() - begun, asked.lost


def _summary(taken: list[float], found: dict[str, float]) -> dict[str, float]:
    percentiles = statistics.quantiles([1000 * t for t in taken], n=100)
    return {
        "accepted": len(taken),
        "p50_ms": percentiles[49],
        "p99_ms": percentiles[98],
        "answered_per_second": found["rate"],
        "refused_per_second": found["refused"],
    }


if __name__ == "__main__":
    sys.exit(main())
