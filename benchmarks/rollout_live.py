"""A rollout on real services: what a shadow costs clients, and how soon a breach is answered.

Two services of the default small CNN (28x28) behind one proxy, and one client that sends RATE
requests a second (open loop: a late answer delays no other request's start, but for those of the
client's 16 connections). In ROUNDS of SECONDS each, in alternating order, the second version is a
shadow of all requests, or is not there: ``p99_ratio`` compares the rounds (median, quartiles); once
on the CPUs that all share, and once with the shadow on a CPU of its own. Then it is a canary of
50 % whose worker is killed again and again; the product's evidence, limits and interval between
looks decide. ``seconds_to_rollback`` ends when no request goes to it any more, ``seconds_to_proof``
when golden samples were answered at the model's address.
Run: python -m benchmarks.rollout_live [ROUNDS [SECONDS [RATE]]]
"""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.harness import describe_machine, parse_arguments, save_result
from benchmarks.serving_models import write_bundle
from cli.rollouts import LOOK_INTERVAL_S
from cv_factory.config.rollout import RolloutConfig
from cv_factory.config.serving import ServingConfig
from cv_factory.deployment.local.endpoint import LocalEndpoint
from cv_factory.deployment.local.proxy_process import TAG_SUFFIX
from cv_factory.deployment.traffic import Share, Traffic
from cv_factory.monitoring.rollout import RolloutState, compare, decide
from cv_factory.monitoring.rollout_evidence import RolloutEvidence
from cv_factory.processes import daemon
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.bundle import Bundle

_N_CONNECTIONS, _START_SECONDS, _KILL_INTERVAL_S = 16, 120.0, 0.5
_CONFIG = RolloutConfig(accuracy=None)


def main() -> None:
    """Measure, print and store the result."""
    rounds, seconds, rate = parse_arguments(rounds=10, seconds=10, rate=50)
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as directory, _services(Path(directory, "model")) as live:
        result = {"breach": measure_breach(live, rate)}
        if rounds:
            result["shadow_on_shared_cpus"] = measure_shadow(live, rounds, seconds, rate)
            result["shadow_on_its_own_cpu"] = _measure_apart(live, rounds, seconds, rate)
    for name, figures in result.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))
    save_result("rollout_live", {"machine": machine, "results": result})


@dataclass
class Live:
    """An endpoint with the services ``one`` and ``two``, and what they are sent."""

    endpoint: LocalEndpoint
    bundle: Bundle
    image: bytes

    def load(self, rate: float, has_ended: Callable[[], bool]) -> "Answers":
        """Send requests at a rate until it has ended, and return what came back."""
        answers, started = Answers(), time.perf_counter()
        with ThreadPoolExecutor(_N_CONNECTIONS) as pool:
            number = 0
            while not has_ended():
                due = started + number / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                pool.submit(self._send, answers)
                number += 1
        return answers

    def _send(self, answers: "Answers") -> None:
        start = time.perf_counter()
        connection = answers.connection(self.endpoint.port)
        status = 0
        try:
            connection.request("POST", "/predict", self.image, {"Content-Type": "image/png"})
            response = connection.getresponse()
            response.read()
            status = response.status
        except (OSError, HTTPException):
            connection.close()
        answers.add(status, time.perf_counter() - start)


@dataclass
class Answers:
    """Durations in seconds, and the number of requests that failed."""

    seconds: list[float] = field(default_factory=list)
    n_failed: int = 0
    _local: threading.local = field(default_factory=threading.local)

    def connection(self, port: int) -> HTTPConnection:
        """Return the connection of this thread."""
        if not hasattr(self._local, "connection"):
            self._local.connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection: HTTPConnection = self._local.connection
        return connection

    def add(self, status: int, seconds: float) -> None:
        """Count an answer; list.append is atomic."""
        self.seconds.append(seconds)
        self.n_failed += status != 200


@contextmanager
def _services(folder: Path) -> Iterator[Live]:
    write_bundle("small_cnn", folder, ServingConfig())
    bundle = Bundle.load(folder / "bundle")
    endpoint = LocalEndpoint(
        folder / "endpoint", "127.0.0.1", find_free_port(), {}, _START_SECONDS, 5.0
    )
    try:
        endpoint.deploy("one", bundle)
        endpoint.deploy("two", bundle, keep=["one"])
        endpoint.set_weights({"one": 1.0})
        yield Live(endpoint, bundle, (folder / "image.png").read_bytes())
    finally:
        for name in ("two", "one"):
            endpoint.remove(name)
        endpoint.close()


def measure_shadow(live: Live, rounds: int, seconds: float, rate: float) -> dict[str, Any]:
    """Return what clients notice of a shadow: failed requests, and the 99th percentile."""
    traffics = {
        "alone": Traffic({"one": Share(1.0)}),
        "shadow": Traffic({"one": Share(1.0), "two": Share(1.0, "shadow")}),
    }
    p99: dict[str, list[float]] = {name: [] for name in traffics}
    p50: dict[str, list[float]] = {name: [] for name in traffics}
    n_failed = n_requests = 0
    _load_for(live, rate, 2.0)
    for number in range(rounds):
        for name in list(traffics)[:: 1 if number % 2 == 0 else -1]:
            live.endpoint.set_traffic(traffics[name])
            answers = _load_for(live, rate, seconds)
            p50[name].append(float(np.quantile(answers.seconds, 0.50)) * 1000)
            p99[name].append(float(np.quantile(answers.seconds, 0.99)) * 1000)
            n_failed += answers.n_failed
            n_requests += len(answers.seconds)
    ratios = [b / a for a, b in zip(p99["alone"], p99["shadow"], strict=True)]
    return {
        "requests": n_requests,
        "failed": n_failed,
        "p50_ms": {name: round(float(np.median(v)), 2) for name, v in p50.items()},
        "p99_ms": {name: round(float(np.median(v)), 2) for name, v in p99.items()},
        "p99_ratio": [round(float(q), 3) for q in np.quantile(ratios, (0.5, 0.25, 0.75))],
    }


def _measure_apart(live: Live, rounds: int, seconds: float, rate: float) -> dict[str, Any]:
    """Measure a shadow on the last CPU, with all else on the others; nothing on a single CPU."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2 or shutil.which("taskset") is None:
        return {"skipped": "needs two CPUs and taskset"}
    own, others = [cpus[-1]], cpus[:-1]
    _pin("two", live, own)
    _pin("one", live, others)
    _set_cpus(os.getpid(), others)
    for process in daemon.find_by_tag(f"{live.endpoint.folder}{TAG_SUFFIX}"):
        _set_cpus(process.pid, others)
    try:
        return measure_shadow(live, rounds, seconds, rate)
    finally:
        _pin("two", live, cpus)
        _set_cpus(os.getpid(), cpus)


def _pin(name: str, live: Live, cpus: list[int]) -> None:
    for process in daemon.find_by_tag(f"{live.endpoint.folder}#{name}"):
        _set_cpus(process.pid, cpus)


def _set_cpus(pid: int, cpus: list[int]) -> None:
    """Let all threads of a process run on some CPUs alone."""
    command = ["taskset", "-a", "-c", "-p", ",".join(map(str, cpus)), str(pid)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _load_for(live: Live, rate: float, seconds: float) -> Answers:
    end = time.perf_counter() + seconds
    return live.load(rate, lambda: time.perf_counter() >= end)


def measure_breach(live: Live, rate: float) -> dict[str, Any]:
    """Return how soon a canary whose worker dies again and again is rolled back."""
    canary = Traffic({"one": Share(0.5), "two": Share(0.5, "canary")})
    live.endpoint.set_traffic(canary)
    has_ended, begun = threading.Event(), datetime.now(UTC)
    results: list[Answers] = []
    client = threading.Thread(target=lambda: results.append(live.load(rate, has_ended.is_set)))
    killer = threading.Thread(target=_kill_workers, args=(live, has_ended))
    state = RolloutState(1, 2, "two", _CONFIG, 3, begun, begun)
    evidence = RolloutEvidence(1, 3, counters=live.endpoint.counters())
    client.start()
    time.sleep(LOOK_INTERVAL_S)
    start = time.perf_counter()
    killer.start()
    while True:
        time.sleep(LOOK_INTERVAL_S)
        evidence = evidence.look(live.endpoint.counters(), "two", 2.0)
        comparisons = compare(evidence, _CONFIG)
        decision = decide(state, comparisons, evidence.step_requests, datetime.now(UTC))
        if decision.action == "roll_back" or time.perf_counter() - start > 120:
            break
    live.endpoint.set_traffic(canary.all_to("one"))
    rolled_back = time.perf_counter() - start
    proof = live.endpoint.verify("one", live.bundle)
    proven = time.perf_counter() - start
    has_ended.set()
    client.join()
    killer.join()
    return {
        "action": decision.action,
        "seconds_to_rollback": round(rolled_back, 1),
        "seconds_to_proof": round(proven, 1),
        "golden_samples": proof.n_samples,
        "requests_of_the_version": evidence.version.requests,
        "errors_of_the_version": evidence.version.errors,
        "failed_for_clients": results[0].n_failed,
        "reason": decision.reason,
    }


def _kill_workers(live: Live, has_ended: threading.Event) -> None:
    process = live.endpoint.running("two")
    if process is None:
        raise RuntimeError("the service ended")
    while not has_ended.wait(_KILL_INTERVAL_S):
        with suppress(psutil.Error):
            for child in psutil.Process(process.pid).children():
                child.kill()


if __name__ == "__main__":
    main()
