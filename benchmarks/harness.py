"""Compares two ways to do the same work: paired runs, in alternating order, each a fresh process.

Both sides run under the same parent, in the order A B B A A B …,
so that a machine that slows down or warms up does so for both. The peak memory of a side is that of
its largest single process, as the operating system counts it.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_LAUNCHER = Path(__file__).resolve().with_name("measured_process.py")
_CALL_SCRIPT = """
import importlib.util, json, sys
root, file, name, result = sys.argv[1:]
sys.path.insert(0, root)
spec = importlib.util.spec_from_file_location("benchmarked", file)
module = sys.modules["benchmarked"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
value = getattr(module, name)()
with open(result, "w", encoding="utf-8") as output:
    json.dump(value, output)
"""


class BenchmarkError(Exception):
    """A side failed or took too long, so that there is nothing to compare."""


@dataclass(frozen=True)
class Side:
    """One of the two things compared.

    Attributes:
        name: How tables and results call it.
        work: A command, or a module-level function without arguments, called in a fresh process.
            What the function returns (JSON) is kept with the sample.
        env: Variables set over the environment.
        cwd: Where a command runs; the project's root by default.
        prepare: Called before each run, in this process, outside the measured time.
        collect: Turns the output (stdout) of a run into values kept with the sample.
    """

    name: str
    work: Sequence[str] | Callable[[], Any]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = ROOT
    prepare: Callable[[], None] | None = None
    collect: Callable[[str], Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Sample:
    """One measured run."""

    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    values: Any = None


@dataclass(frozen=True)
class Spread:
    """The distribution of some numbers, in one line; ``iqr`` is (first, third quartile)."""

    n: int
    median: float
    min: float
    max: float
    iqr: tuple[float, float]

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Spread":
        """Summarize at least one number."""
        if len(numbers) == 1:
            quartiles = [numbers[0]] * 3
        else:
            quartiles = statistics.quantiles(numbers, n=4, method="inclusive")
        return cls(
            n=len(numbers),
            median=statistics.median(numbers),
            min=min(numbers),
            max=max(numbers),
            iqr=(quartiles[0], quartiles[2]),
        )


@dataclass(frozen=True)
class Comparison:
    """The samples of two sides, pair by pair, and where and when they were measured.

    Attributes:
        name: Of the benchmark.
        names: Of the two sides.
        samples: ``samples[side][pair]``, warm-up runs left out.
        order: The sides (0 or 1) in the order in which they ran.
        machine: What the figures depend on.
    """

    name: str
    names: tuple[str, str]
    samples: tuple[list[Sample], list[Sample]]
    order: list[int]
    machine: dict[str, Any]

    def spread(self, side: int, quantity: str = "seconds") -> Spread:
        """Summarize one quantity (an attribute of ``Sample``) of one side (0 or 1)."""
        return Spread.of([getattr(sample, quantity) for sample in self.samples[side]])

    def ratio(self, quantity: str = "seconds") -> Spread:
        """Summarize second side / first side, computed pair by pair."""
        pairs = zip(*self.samples, strict=True)
        return Spread.of([getattr(b, quantity) / getattr(a, quantity) for a, b in pairs])

    def difference(self, quantity: str = "seconds") -> Spread:
        """Summarize second side - first side, computed pair by pair."""
        pairs = zip(*self.samples, strict=True)
        return Spread.of([getattr(b, quantity) - getattr(a, quantity) for a, b in pairs])

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON: samples, summaries, machine."""
        quantities = ("seconds", "cpu_seconds", "peak_rss_bytes")
        return {
            "name": self.name,
            "machine": self.machine,
            "order": [self.names[side] for side in self.order],
            "sides": [
                {
                    "name": name,
                    **{quantity: asdict(self.spread(side, quantity)) for quantity in quantities},
                    "samples": [asdict(sample) for sample in self.samples[side]],
                }
                for side, name in enumerate(self.names)
            ],
            "ratio": {quantity: asdict(self.ratio(quantity)) for quantity in quantities},
            "difference_seconds": asdict(self.difference()),
        }

    def save(self, path: Path | None = None) -> Path:
        """Write the JSON result, by default under benchmarks/results, and return its path."""
        return save_result(self.name, self.to_json(), path)

    def table(self) -> "Table":
        """Return the figures as a table for a terminal."""
        from rich.table import Table

        n = len(self.samples[0])
        table = Table(title=f"{self.name} ({n} pairs)", title_justify="left")
        table.add_column("")
        for title in ("median s", "IQR", "min - max", "CPU s", "peak RSS MB"):
            table.add_column(title, justify="right")
        for side, name in enumerate(self.names):
            seconds = self.spread(side)
            table.add_row(
                name,
                f"{seconds.median:.3f}",
                f"{seconds.iqr[0]:.3f} - {seconds.iqr[1]:.3f}",
                f"{seconds.min:.3f} - {seconds.max:.3f}",
                f"{self.spread(side, 'cpu_seconds').median:.2f}",
                f"{self.spread(side, 'peak_rss_bytes').median / 1e6:.0f}",
            )
        ratio, memory = self.ratio(), self.ratio("peak_rss_bytes")
        table.add_section()
        table.add_row(
            f"{self.names[1]} / {self.names[0]}",
            f"{ratio.median:.3f}",
            f"{ratio.iqr[0]:.3f} - {ratio.iqr[1]:.3f}",
            f"{ratio.min:.3f} - {ratio.max:.3f}",
            f"{self.ratio('cpu_seconds').median:.3f}",
            f"{memory.median:.3f}",
        )
        return table


def compare(
    name: str,
    baseline: Side,
    candidate: Side,
    *,
    pairs: int = 5,
    warmup: int = 1,
    timeout: float = 600.0,
) -> Comparison:
    """Run both sides ``pairs`` times, after ``warmup`` unmeasured runs of each, and compare them.

    Args:
        name: Names the result.
        baseline: The side that ratios are relative to.
        candidate: The side whose claim is tested.
        pairs: Measured runs of each side; an even number balances the order.
        warmup: Runs of each side that fill caches and are thrown away.
        timeout: Seconds after which a run is killed with all its processes.

    Raises:
        BenchmarkError: A run failed or timed out.
    """
    if pairs < 1 or baseline.name == candidate.name:
        raise ValueError("at least one pair and two different names are needed")
    sides = (baseline, candidate)
    for _ in range(warmup):
        for side in sides:
            run_once(side, timeout)
    machine = describe_machine()
    samples: tuple[list[Sample], list[Sample]] = ([], [])
    order: list[int] = []
    for pair in range(pairs):
        for index in (0, 1) if pair % 2 == 0 else (1, 0):
            samples[index].append(run_once(sides[index], timeout))
            order.append(index)
    machine["load_after"] = _load()
    return Comparison(name, (baseline.name, candidate.name), samples, order, machine)


def run_once(side: Side, timeout: float = 600.0) -> Sample:
    """Run one side in a fresh process and measure it.

    Raises:
        BenchmarkError: It failed or timed out; the message ends with what it printed last.
    """
    if side.prepare:
        side.prepare()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        report, value = Path(directory, "report.json"), Path(directory, "value.json")
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(report)]
        with (
            Path(directory, "stdout").open("w+", encoding="utf-8", errors="replace") as stdout,
            Path(directory, "stderr").open("w+", encoding="utf-8", errors="replace") as stderr,
        ):
            process = subprocess.Popen(
                [*launcher, *_command(side, value)],
                cwd=side.cwd,
                env={**os.environ, **side.env},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            _wait(process, side, timeout)
            stdout.seek(0)
            stderr.seek(0)
            output, errors = stdout.read(), stderr.read()
        if not report.exists():
            raise BenchmarkError(f"{side.name} could not be started:\n{errors[-2000:]}")
        measured = json.loads(report.read_text(encoding="utf-8"))
        exit_code = measured.pop("exit_code")
        if exit_code:
            tail = (output[-1000:] + errors[-2000:]).strip()
            raise BenchmarkError(f"{side.name} ended with exit code {exit_code}:\n{tail}")
        values = json.loads(value.read_text(encoding="utf-8")) if value.exists() else None
        if side.collect:
            values = dict(side.collect(output))
        return Sample(**measured, values=values)


def _wait(process: subprocess.Popen[bytes], side: Side, timeout: float) -> None:
    """Wait for the process; whatever happens, leave nothing of its process group behind."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{side.name} took longer than {timeout:g} s.") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _command(side: Side, value: Path) -> list[str]:
    if not callable(side.work):
        return list(side.work)
    function = side.work
    if "." in function.__qualname__ or function.__name__ == "<lambda>":
        raise ValueError(f"{function.__qualname__} is no module-level function")
    # By file, since the module may be the running script, which no name leads to.
    file = str(Path(function.__code__.co_filename).resolve())
    return [sys.executable, "-c", _CALL_SCRIPT, str(ROOT), file, function.__name__, str(value)]


def save_result(name: str, content: Mapping[str, Any], path: Path | None = None) -> Path:
    """Write a result as JSON, by default to ``benchmarks/results/NAME.json``; return its path."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def parse_arguments(**defaults: Any) -> tuple[Any, ...]:
    """Parse the optional positional arguments of the running script; its docstring is ``--help``.

    Args:
        defaults: By name in order; a value has its default's type, a list takes all that are left.
    """
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default in defaults.items():
        kind, count = (str, "*") if isinstance(default, list) else (type(default), "?")
        parser.add_argument(name.upper(), nargs=count, type=kind, default=default)
    return tuple(vars(parser.parse_args()).values())


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on: hardware, software, commit, load; no machine's name."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "instructions": _instructions(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "load_before": _load(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _instructions() -> str:
    """Return the vector instructions of an x86 processor, which decide what is fast on it."""
    from cv_factory.cpu import read_cpu_flags

    names = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}
    return ", ".join(sorted(names & read_cpu_flags()))


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()
