"""How long a user waits for ``run.py``, from command to prompt, in a fresh copy of the project.

    python -m benchmarks waits                          # all, 3 times each (5 minutes)
    python -m benchmarks.waits help models history      # some
    RUNS=1 python -m benchmarks waits                   # quick

``fresh`` is the first training of a new copy with a new HOME, after ``python -m stacks apply``;
``no_cache`` and ``cached`` repeat it there. The installed packages' bytecode is warm in all of
them. Each training is followed by its seconds before the first step, and in each step.
"""

import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import (
    Sample,
    Side,
    Spread,
    describe_machine,
    parse_arguments,
    run_once,
    save_result,
)
from benchmarks.orchestration import Bench

_TRAINING = ("--pipeline", "training")
#: Arguments of ``run.py``, and the seconds that its median may take.
_COMMANDS: dict[str, tuple[tuple[str, ...], float]] = {
    "fresh": (_TRAINING, 35.0),
    "no_cache": ((*_TRAINING, "--no-cache"), 25.0),
    "cached": (_TRAINING, 6.0),
    "help": (("--help",), 0.4),
    "models": (("models",), 2.0),
    "history": (("history",), 2.0),
}


def main() -> None:
    """Measure the commands that the arguments name, print and store the result."""
    (names,) = parse_arguments(names=[])
    if unknown := set(names) - set(_COMMANDS):
        sys.exit(f"There is no {unknown.pop()!r}; there are: {', '.join(_COMMANDS)}.")
    runs, machine = int(os.environ.get("RUNS", "3")), describe_machine()
    samples = _measure([name for name in _COMMANDS if name in (names or _COMMANDS)], runs)
    table = Table("command", "median s", "min - max", "bar", "CPU s", "in steps, median s")
    for name, measured in samples.items():
        seconds = Spread.of([sample.seconds for sample in measured])
        cpu = Spread.of([sample.cpu_seconds for sample in measured])
        bar = _COMMANDS[name][1]
        table.add_row(
            name,
            f"{seconds.median:.2f}",
            f"{seconds.min:.2f} - {seconds.max:.2f}",
            f"{bar:g} {'met' if seconds.median <= bar else 'MISSED'}",
            f"{cpu.median:.2f}",
            _describe_steps(measured),
        )
    Console().print(table, f"n = {runs}")
    content = {
        "machine": machine,
        "bars": {name: _COMMANDS[name][1] for name in samples},
        "samples": {name: [asdict(s) for s in measured] for name, measured in samples.items()},
    }
    save_result("waits" if not names else f"waits_{'_'.join(samples)}", content)


def _measure(names: list[str], runs: int) -> dict[str, list[Sample]]:
    """Return samples by command; only ``fresh`` gets a new project for each."""
    samples: dict[str, list[Sample]] = {}
    with tempfile.TemporaryDirectory(prefix="cv-factory-bench-") as folder:
        for run in range(runs if "fresh" in names else 1):
            (Path(folder) / str(run)).mkdir()
            bench = Bench(Path(folder) / str(run))
            fresh = run_once(_side(bench, "fresh"))
            if "fresh" in names:
                samples.setdefault("fresh", []).append(fresh)
        for name in names:
            if name != "fresh":
                samples[name] = [run_once(_side(bench, name)) for _ in range(runs)]
    return samples


def _side(bench: Bench, name: str) -> Side:
    arguments = _COMMANDS[name][0]
    is_training = arguments[0] == _TRAINING[0]
    return Side(
        name,
        [sys.executable, "run.py", *arguments],
        env=bench.env,
        cwd=bench.root,
        prepare=bench.begin,
        collect=bench.timings if is_training else None,
    )


def _describe_steps(samples: list[Sample]) -> str:
    if samples[0].values is None:
        return ""
    medians = {
        part: Spread.of([sample.values[part] for sample in samples]).median
        for part in samples[0].values
    }
    return ", ".join(f"{part} {seconds:.1f}" for part, seconds in medians.items() if seconds > 0.1)


if __name__ == "__main__":
    main()
