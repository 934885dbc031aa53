"""Overhead of a model's proxy: one service, loaded at its own port and through the proxy.

The default small CNN on 28x28, one worker, API keys and logs on. ``wrk`` (Debian: wrk) asks for
SECONDS (default 3) at 1, 8 and 32 connections over loopback, in ROUNDS (default 3) of alternating
order; on few cores client, proxy and service share them. The proxy before Envoy, in one run with
it: ``results/proxy_own_and_envoy.json``.
Run: python -m benchmarks.proxy_overhead [ROUNDS [SECONDS]]
"""

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Spread, describe_machine, parse_arguments, save_result
from benchmarks.serving import CONNECTIONS, Server, wrk
from benchmarks.serving_models import write_bundle
from cv_factory.config.serving import ServingConfig
from cv_factory.deployment.local.endpoint import LocalEndpoint
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.auth.api_keys import FILE_VARIABLE, add_key
from cv_factory.serving.bundle import Bundle

_START_SECONDS = 120.0
_SIDES = ("direct", "proxy")
#: By connections and side, the figures of each round.
Figures = dict[int, dict[str, list[dict[str, float]]]]


def measure(folder: Path, rounds: int, seconds: int) -> Figures:
    """Start a service and its proxy, load both, and return the figures."""
    write_bundle("small_cnn", folder, ServingConfig())
    key = add_key(folder / "keys.json", "load", ["predict"], None)
    variables = {FILE_VARIABLE: str(folder / "keys.json")}
    endpoint = LocalEndpoint(
        folder / "endpoint", "127.0.0.1", find_free_port(), variables, _START_SECONDS
    )
    try:
        endpoint.deploy("one", Bundle.load(folder / "bundle"))
        endpoint.set_weights({"one": 1.0})
        service = endpoint.running("one")
        if service is None:
            raise RuntimeError("the service ended")
        ports = {"direct": service.port, "proxy": endpoint.port}
        target = Server([], {}, "/predict", "image/png", folder / "image.png")
        return _load(target, ports, f"Bearer {key}", rounds, seconds)
    finally:
        endpoint.remove("one")
        endpoint.close()


def _load(
    target: Server, ports: dict[str, int], authorization: str, rounds: int, seconds: int
) -> Figures:
    figures: Figures = {n: {side: [] for side in _SIDES} for n in CONNECTIONS}
    urls = {side: f"http://127.0.0.1:{port}{target.path}" for side, port in ports.items()}
    for side in _SIDES:
        wrk(target, urls[side], authorization, 8, 1)
    for number in range(rounds):
        for connections, samples in figures.items():
            for side in _SIDES if number % 2 == 0 else _SIDES[::-1]:
                samples[side].append(wrk(target, urls[side], authorization, connections, seconds))
    return figures


def report(figures: Figures) -> None:
    """Print medians, and ratios round by round."""
    from rich.console import Console
    from rich.table import Table

    rounds = len(figures[CONNECTIONS[0]]["direct"])
    table = Table(title=f"proxy_overhead ({rounds} rounds, medians)", title_justify="left")
    sides = (f"{side}: /s, p50, p99 ms" for side in _SIDES)
    for title in ("connections", *sides, "rate: ratio", "p50: ms added"):
        table.add_column(title, justify="right")
    for connections, samples in figures.items():
        pairs = list(zip(samples["direct"], samples["proxy"], strict=True))
        ratio = Spread.of([proxy["rate"] / direct["rate"] for direct, proxy in pairs])
        added = Spread.of([proxy["p50"] - direct["p50"] for direct, proxy in pairs])
        table.add_row(
            str(connections),
            *(_cell(samples[side]) for side in _SIDES),
            f"{ratio.median:.2f} ({ratio.min:.2f}-{ratio.max:.2f})",
            f"{added.median:+.2f} ({added.min:+.2f} to {added.max:+.2f})",
        )
    Console(width=120).print(table)


def _cell(samples: list[dict[str, float]]) -> str:
    rate, p50, p99 = (Spread.of([f[key] for f in samples]).median for key in ("rate", "p50", "p99"))
    return f"{rate:.0f}, {p50:.2f}, {p99:.2f}"


def main() -> int:
    """Measure, print and store the result."""
    rounds, seconds = parse_arguments(rounds=3, seconds=3)
    if shutil.which("wrk") is None:
        sys.stderr.write("This benchmark needs wrk (Debian: apt-get install wrk).\n")
        return 2
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as directory:
        figures = measure(Path(directory, "model"), rounds, seconds)
    report(figures)
    save_result("proxy_overhead", {"machine": machine, "figures": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
