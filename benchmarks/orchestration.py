"""Overhead of orchestration: ``run.py --pipeline training`` against a bare script of the same work.

Targets: at most 6 s from the start of the process to the first step; on Fashion-MNIST at most 12 s
more than the bare script in all (start-up, artifacts, lineage, reports).

    python -m benchmarks orchestration                       # digits, 5 pairs
    CONFIG=configs/training_fashion_mnist.yaml PAIRS=2 python -m benchmarks orchestration

``SET`` overrides settings on both sides: what is added does not grow with the epochs, so
``SET=train.epochs=1`` gives the same difference in a tenth of the time, with less noise.

The stack lives in a temporary directory; every step runs (``--no-cache``).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import ROOT, Comparison, Side, Spread, compare, parse_arguments

_TIMINGS = """
import json
from zenml.client import Client

run = Client().list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True).items[0]
steps = {
    name: [step.start_time.timestamp(), step.end_time.timestamp()]
    for name, step in run.steps.items()
}
print("TIMINGS" + json.dumps(steps))
"""


class Bench:
    """A copy of the project with an applied stack of its own, in a temporary directory."""

    def __init__(self, folder: Path) -> None:
        """Copy the files that git knows or would add, and apply the local stack."""
        self.root = folder / "project"
        self.env = {
            "HOME": str(folder),
            "ZENML_CONFIG_PATH": str(folder / "zenml"),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "DO_NOT_TRACK": "1",
            "GX_ANALYTICS_ENABLED": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "TZ": "UTC",
        }
        self._begun = 0.0
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in listed.stdout.splitlines():
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        self.run("-m", "stacks", "apply", "local", "--set")

    def run(self, *arguments: str) -> str:
        """Run Python in the copy and return what it printed."""
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**os.environ, **self.env},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def begin(self) -> None:
        """Note when the measured process is started."""
        self._begun = time.time()

    def timings(self, _output: str) -> dict[str, Any]:
        """Return seconds of each step of the newest run, and of what came before the first."""
        (line,) = [
            line for line in self.run("-c", _TIMINGS).splitlines() if line.startswith("TIMINGS")
        ]
        steps = json.loads(line.removeprefix("TIMINGS"))
        first = min(start for start, _ in steps.values())
        return {
            "before the first step": first - self._begun,
            **{name: end - start for name, (start, end) in steps.items()},
        }


def main() -> None:
    """Compare, print the itemised difference, and write the result as JSON."""
    parse_arguments()
    config = os.environ.get("CONFIG", "configs/training.yaml")
    pairs = int(os.environ.get("PAIRS", "5"))
    warmup = int(os.environ.get("WARMUP", "1"))
    overrides = os.environ.get("SET", "").split()
    options = [word for setting in overrides for word in ("--set", setting)]
    with tempfile.TemporaryDirectory(prefix="cv-factory-bench-") as folder:
        bench = Bench(Path(folder))
        bare = Side(
            "bare script",
            [sys.executable, "benchmarks/bare_training.py", config, *overrides],
            env=bench.env,
            cwd=bench.root,
            collect=json.loads,
        )
        pipeline = Side(
            "pipeline",
            [
                sys.executable,
                "run.py",
                *("--pipeline", "training", "--config", config, "--no-cache"),
                # One epoch would fail the shipped gates; judging costs milliseconds.
                *(*options, "--set", "gates=[]"),
            ],
            env=bench.env,
            cwd=bench.root,
            prepare=bench.begin,
            collect=bench.timings,
        )
        name = f"orchestration_{Path(config).stem}"
        comparison = compare(name, bare, pipeline, pairs=pairs, warmup=warmup, timeout=1200)
    console = Console()
    console.print(comparison.table())
    console.print(_items(comparison))
    added = comparison.difference()
    console.print(f"Added in all: median {added.median:.1f} s ({added.min:.1f} to {added.max:.1f})")
    comparison.save()


def _items(comparison: Comparison) -> Table:
    bare, pipeline = comparison.samples
    names = list(pipeline[0].values)
    table = Table("Part", "Bare, s", "Pipeline, s", "Added, s", title="Medians by part")
    for name in names:
        ours = Spread.of([sample.values[name] for sample in pipeline]).median
        baseline = Spread.of([sample.values["seconds"].get(name, 0.0) for sample in bare]).median
        table.add_row(name, f"{baseline:.2f}", f"{ours:.2f}", f"{ours - baseline:+.2f}")
    return table


if __name__ == "__main__":
    main()
