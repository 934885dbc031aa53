"""Requests/s and latency of the service against what users would pick: same model, same client.

Each round starts every server once, in alternating order, and loads it with ``wrk`` (Debian: wrk)
at 1, 8 and 32 connections over loopback. Ours runs with an API key, rate limits and logs on.
ROUNDS (default 2), SECONDS of load (default 4), NAMES of models (resnet18, small_cnn) and of what
it is compared with (mlflow_torch, mlflow_onnx, fastapi, bentoml, mlserver); all of each by default.
MLServer needs other versions of packages: it is installed into an environment of its own.
Run: python -m benchmarks.serving [ROUNDS [SECONDS [NAME …]]]
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.harness import (
    ROOT,
    BenchmarkError,
    Spread,
    describe_machine,
    parse_arguments,
    save_result,
)
from benchmarks.serving_baselines import FOLDER, mlflow_body, mlserver_body
from benchmarks.serving_models import SIZES, write_bundle
from cv_factory.config.serving import ServingConfig
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.auth.api_keys import FILE_VARIABLE, add_key

CONNECTIONS = (1, 8, 32)
OURS = "cv_factory"
BASELINES = ("mlflow_torch", "mlflow_onnx", "fastapi", "bentoml", "mlserver")
_START_SECONDS = 300.0


@dataclass(frozen=True)
class Server:
    """How a server is started, and what it is sent."""

    command: list[str]
    env: dict[str, str]
    path: str
    content_type: str
    body: Path
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """What one server did in one round, by number of connections; memory in MB.

    CPU time is of all its processes: what a request costs, on a busy machine too.
    """

    cold_start_seconds: float
    rss_mb: float
    cpu_ms_per_request: float
    by_connections: dict[int, dict[str, float]]


def server(name: str, folder: Path, port: int) -> Server:
    """Return how to start one of the servers."""
    env = {
        FOLDER: str(folder),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "1",
    }
    image, binary = folder / "image.png", "image/png"
    if name == OURS:
        keys = folder / "keys.json"
        command = [sys.executable, "-m", "cv_factory.serving", str(folder / "bundle")]
        env[FILE_VARIABLE] = str(keys)
        return Server([*command, "--port", str(port)], env, "/predict", binary, image)
    command = [sys.executable, "-m", "benchmarks.serving_baselines", name, str(folder), str(port)]
    if name.startswith("mlflow"):
        body = folder / f"{name}.json"
        os.environ[FOLDER] = str(folder)
        body.write_text(mlflow_body(name.removeprefix("mlflow_")), encoding="utf-8")
        return Server(command, env, "/invocations", "application/json", body)
    if name == "mlserver":
        body = folder / "mlserver.json"
        body.write_text(mlserver_body(image), encoding="utf-8")
        return Server(command, env, "/v2/models/model/infer", "application/json", body)
    return Server(command, env, "/predict", binary, image)


@contextmanager
def running(
    target: Server, port: int, headers: dict[str, str]
) -> Iterator[tuple[psutil.Process, float]]:
    """Start a server; yield its process and the seconds until its first answer; end it."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            target.command, cwd=ROOT, env={**os.environ, **target.env},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            _wait(process, f"http://127.0.0.1:{port}{target.path}", target, headers)
            yield psutil.Process(process.pid), time.perf_counter() - start
        except BenchmarkError as error:
            output.seek(0)
            tail = output.read().decode(errors="replace")[-2000:]
            raise BenchmarkError(f"{error}\n{tail}") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(
    process: subprocess.Popen[bytes], url: str, target: Server, headers: dict[str, str]
) -> None:
    body, named = target.body.read_bytes(), {**headers, "Content-Type": target.content_type}
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            response = httpx.post(url, content=body, headers=named, timeout=10)
        except httpx.HTTPError:
            time.sleep(0.02)
            continue
        if response.status_code == httpx.codes.OK:
            return
        # MLServer answers 400 until its model is loaded.
        if response.status_code < 500 and "not ready yet" not in response.text:
            raise BenchmarkError(f"{url} answers {response.status_code}: {response.text[:500]}")
    raise BenchmarkError(f"{' '.join(target.command)} did not answer.")


def load(target: Server, port: int, authorization: str, seconds: int) -> Load:
    """Start a server, load it, and return what it did."""
    headers = {"Authorization": authorization}
    with running(target, port, headers) as (process, cold):
        url = f"http://127.0.0.1:{port}{target.path}"
        wrk(target, url, authorization, 8, 2)
        family = [process, *process.children(recursive=True)]
        before = cpu_seconds(family)
        figures = {n: wrk(target, url, authorization, n, seconds) for n in CONNECTIONS}
        cpu = cpu_seconds(family) - before
        # The process that answers; a supervisor beside it is not one worker's memory.
        rss = max(member.memory_info().rss for member in family)
    requests = sum(figure["rate"] for figure in figures.values()) * seconds
    return Load(cold, rss / 1e6, 1000 * cpu / requests, figures)


def cpu_seconds(family: Sequence[psutil.Process]) -> float:
    """Return the CPU seconds that some processes have used."""
    times = [member.cpu_times() for member in family]
    return float(sum(each.user + each.system for each in times))


def wrk(
    target: Server,
    url: str,
    authorization: str,
    connections: int,
    seconds: int,
    *,
    may_refuse: bool = False,
) -> dict[str, float]:
    """Load a server; return requests/s answered 200, others, and late (2 s), p50 and p99 in ms.

    Raises:
        BenchmarkError: A response was not 200, or late, and ``may_refuse`` is not set.
    """
    script = str(Path(__file__).with_name("serving_load.lua"))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", script, url]
    env = {
        **os.environ,
        "BENCHMARK_BODY": str(target.body),
        "BENCHMARK_TYPE": target.content_type,
        "BENCHMARK_AUTHORIZATION": authorization,
        "BENCHMARK_HEADERS": "\n".join(f"{n}: {value}" for n, value in target.headers.items()),
    }
    output = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    counts = json.loads(output.strip().splitlines()[-1])
    if counts["errors"] or (counts["refused"] + counts["late"] and not may_refuse):
        raise BenchmarkError(
            f"{url}: {counts['refused']} refused, {counts['late']} late, {counts['errors']} errors"
        )
    names = {"rate": "answered", "refused": "refused", "late": "late"}
    rates = {name: counts[count] / counts["seconds"] for name, count in names.items()}
    return {**rates, "p50": counts["p50"], "p99": counts["p99"]}


def bare(folder: Path) -> float:
    """Return images/s of decoding and scoring in batches without a server."""
    command = [sys.executable, "-m", "benchmarks.serving_baselines", "bare", str(folder), "0"]
    return float(
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )


def measure(
    model: str, folder: Path, baselines: Sequence[str], rounds: int, seconds: int
) -> dict[str, Any]:
    """Measure every server ``rounds`` times; return the figures by server."""
    serving = {
        "access": {"protect": ["metrics"]},
        "rate": {"per_key": 1e6, "per_address": 1e6},
        "log": {"requests": True, "predictions": str(folder / "predictions")},
    }
    write_bundle(model, folder, ServingConfig.model_validate(serving))
    authorization = f"Bearer {add_key(folder / 'keys.json', 'load', ['predict'], None)}"
    loads: dict[str, list[Load]] = {name: [] for name in (OURS, *baselines)}
    bares = []
    for number in range(rounds):
        bares.append(bare(folder))
        names = list(loads) if number % 2 == 0 else list(loads)[::-1]
        for name in names:
            port = find_free_port()
            loads[name].append(load(server(name, folder, port), port, authorization, seconds))
            sys.stderr.write(f"{model} {name}: {loads[name][-1]}\n")
    return {"bare": bares, "servers": loads}


def report(model: str, measured: dict[str, Any]) -> dict[str, Any]:
    """Print one model's figures and return them as plain JSON."""
    from rich.console import Console
    from rich.table import Table

    loads: dict[str, Sequence[Load]] = measured["servers"]
    bares = measured["bare"]
    table = Table(title=f"{model} ({len(bares)} rounds, medians)", title_justify="left")
    for title in (
        "",
        *(f"c{n}: /s, p50, p99 ms" for n in CONNECTIONS),
        "MB",
        "CPU ms",
        "start s",
        "ratio",
    ):
        table.add_column(title, justify="right")
    summary: dict[str, Any] = {"bare_images_per_second": bares}
    for name, runs in loads.items():
        pairs = zip(loads[OURS], runs, strict=True)
        ratio = Spread.of(
            [a.by_connections[32]["rate"] / b.by_connections[32]["rate"] for a, b in pairs]
        )
        cells = [_cell(runs, n) for n in CONNECTIONS]
        rss = Spread.of([run.rss_mb for run in runs]).median
        cold = Spread.of([run.cold_start_seconds for run in runs])
        spread = f"{ratio.median:.2f} ({ratio.min:.2f}-{ratio.max:.2f})"
        cpu = Spread.of([run.cpu_ms_per_request for run in runs]).median
        table.add_row(name, *cells, f"{rss:.0f}", f"{cpu:.2f}", f"{cold.median:.1f}", spread)
        summary[name] = [run.__dict__ for run in runs]
    rates = [run.by_connections[32]["rate"] for run in loads[OURS]]
    ratio = Spread.of([a / b for a, b in zip(rates, bares, strict=True)])
    spread = f"{ratio.median:.2f} ({ratio.min:.2f}-{ratio.max:.2f})"
    table.add_row("bare loop", "", "", f"{Spread.of(bares).median:.0f}", "", "", "", spread)
    Console(width=140).print(table)
    return summary


def _cell(runs: Sequence[Load], connections: int) -> str:
    samples = [run.by_connections[connections] for run in runs]
    rate, p50, p99 = (Spread.of([s[key] for s in samples]).median for key in ("rate", "p50", "p99"))
    return f"{rate:.0f}, {p50:.1f}, {p99:.1f}"


def main() -> int:
    """Measure, print and store the result."""
    rounds, seconds, names = parse_arguments(rounds=2, seconds=4, names=[])
    if shutil.which("wrk") is None:
        sys.stderr.write("This benchmark needs wrk (Debian: apt-get install wrk).\n")
        return 2
    models = [name for name in SIZES if name in names] or list(SIZES)
    baselines = [name for name in BASELINES if name in names] or BASELINES
    result: dict[str, Any] = {"machine": describe_machine(), "seconds": seconds}
    with tempfile.TemporaryDirectory() as directory:
        for model in models:
            measured = measure(model, Path(directory) / model, baselines, rounds, seconds)
            result[model] = report(model, measured)
    result["machine"]["load_after"] = round(os.getloadavg()[0], 2)
    save_result("serving", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
