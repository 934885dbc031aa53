"""What the prediction log costs a service: the same one with and without it, loaded by turns.

The default small CNN on 28x28, or ResNet18 on 64x64; one worker, an API key, request log on. wrk
(Debian: wrk) sends one image a request over 8 connections for SECONDS (default 3), in ROUNDS
(default 9) of alternating order; the CPU time of a request tells what it costs on a busy machine,
too. NAMES of models (small_cnn, resnet18).
Run: python -m benchmarks.prediction_log [ROUNDS [SECONDS [NAME …]]]
"""

import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.harness import Spread, describe_machine, parse_arguments, save_result
from benchmarks.serving import OURS, cpu_seconds, running, server, wrk
from benchmarks.serving_models import SIZES, write_bundle
from cv_factory.config.serving import ServingConfig
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.auth.api_keys import add_key

CONNECTIONS = 8
SIDES = ("without", "with")
#: By side, the figures of each round.
Figures = dict[str, list[dict[str, float]]]


def measure(model: str, folder: Path, rounds: int, seconds: int) -> Figures:
    """Start both services, load them by turns, and return the figures of each round."""
    figures: Figures = {side: [] for side in SIDES}
    with ExitStack() as stack:
        targets = {}
        for side in SIDES:
            own = folder / side
            log = {"predictions": str(own / "predictions")} if side == "with" else {}
            write_bundle(model, own, ServingConfig.model_validate({"log": log}))
            authorization = f"Bearer {add_key(own / 'keys.json', 'load', ['predict'], None)}"
            port = find_free_port()
            target = server(OURS, own, port)
            headers = {"Authorization": authorization}
            process, _ = stack.enter_context(running(target, port, headers))
            family = [process, *process.children(recursive=True)]
            targets[side] = (target, f"http://127.0.0.1:{port}{target.path}", authorization, family)
        for number in range(rounds + 1):
            for side in SIDES if number % 2 else SIDES[::-1]:
                target, url, authorization, family = targets[side]
                before = cpu_seconds(family)
                measured = wrk(target, url, authorization, CONNECTIONS, seconds)
                cpu_ms = 1000 * (cpu_seconds(family) - before) / (measured["rate"] * seconds)
                # The first round warms up.
                if number:
                    figures[side].append({**measured, "cpu_ms": cpu_ms})
    return figures


def report(model: str, figures: Figures) -> None:
    """Print medians, and ratios round by round."""
    print(f"{model}, {CONNECTIONS} connections, medians of {len(figures['with'])} rounds")
    for side, rounds in figures.items():
        rate, cpu, p99 = (
            Spread.of([r[key] for r in rounds]).median for key in ("rate", "cpu_ms", "p99")
        )
        print(f"  {side:8} {rate:7.0f} /s, {cpu:.3f} ms of CPU, p99 {p99:.1f} ms")
    for key, name in (("rate", "requests/s"), ("cpu_ms", "CPU time")):
        pairs = zip(figures["without"], figures["with"], strict=True)
        ratio = Spread.of([b[key] / a[key] for a, b in pairs])
        quartiles = f"{ratio.iqr[0]:.3f}-{ratio.iqr[1]:.3f}"
        print(f"  with / without: {name} {ratio.median:.3f} (quartiles {quartiles})")


def main() -> int:
    """Measure, print and store the result."""
    rounds, seconds, names = parse_arguments(rounds=9, seconds=3, names=[])
    if shutil.which("wrk") is None:
        sys.stderr.write("This benchmark needs wrk (Debian: apt-get install wrk).\n")
        return 2
    result: dict[str, Any] = {"machine": describe_machine(), "seconds": seconds}
    with tempfile.TemporaryDirectory() as directory:
        for model in [name for name in SIZES if name in names] or list(SIZES):
            figures = measure(model, Path(directory) / model, rounds, seconds)
            report(model, figures)
            result[model] = figures
    result["machine"]["load_after"] = round(os.getloadavg()[0], 2)
    save_result("prediction_log", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
