import json
import sys
from pathlib import Path

import pytest

from benchmarks.harness import (
    BenchmarkError,
    Comparison,
    Sample,
    Side,
    Spread,
    compare,
    run_once,
)
from tests.support.processes import wait_until_ended

MEGABYTE = 10**6


def allocate_little() -> dict[str, int]:
    return {"megabytes": len(bytearray(20 * MEGABYTE)) // MEGABYTE}


def allocate_much() -> dict[str, int]:
    return {"megabytes": len(bytearray(120 * MEGABYTE)) // MEGABYTE}


def fail() -> None:
    raise RuntimeError("no such luck")


def sleeper(name: str, seconds: float, log: Path) -> Side:
    code = f"import time; open({str(log)!r}, 'a').write({name!r}); time.sleep({seconds})"
    return Side(name, [sys.executable, "-S", "-c", code])


def test_order_alternates_pair_by_pair_and_warm_up_is_not_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = compare("order", sleeper("A", 0, log), sleeper("B", 0, log), pairs=4, warmup=1)
    assert log.read_text() == "AB" + "ABBAABBA"
    assert result.order == [0, 1, 1, 0, 0, 1, 1, 0]
    assert [len(samples) for samples in result.samples] == [4, 4]


def test_ratio_is_of_the_second_side_to_the_first() -> None:
    first, second = ([Sample(s, s, 1) for s in side] for side in ((1, 2, 4), (3, 4, 20)))
    result = Comparison("ratio", ("A", "B"), (first, second), [0, 1, 1, 0, 0, 1], {})
    assert result.ratio() == Spread(n=3, median=3, min=2, max=5, iqr=(2.5, 4))
    assert result.difference() == Spread(n=3, median=2, min=2, max=16, iqr=(2, 9))
    assert result.spread(1).median == 4


@pytest.mark.slow
def test_each_side_is_timed_from_its_start_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = compare("time", sleeper("A", 0, log), sleeper("B", 0.4, log), pairs=2, warmup=0)
    assert result.spread(1).min >= 0.4
    assert result.ratio().n == 2


def test_peak_memory_is_the_childs_own_even_under_a_large_parent() -> None:
    ballast = bytearray(300 * MEGABYTE)
    ballast[::4096] = b"x" * len(ballast[::4096])
    little = run_once(Side("little", allocate_little))
    much = run_once(Side("much", allocate_much))
    assert little.peak_rss_bytes < 100 * MEGABYTE
    extra = much.peak_rss_bytes - little.peak_rss_bytes
    assert extra == pytest.approx(100 * MEGABYTE, rel=0.15)
    assert len(ballast) == 300 * MEGABYTE


def test_values_of_a_function_and_of_a_commands_output_are_kept() -> None:
    assert run_once(Side("function", allocate_little)).values == {"megabytes": 20}
    command = [sys.executable, "-S", "-c", "print('accuracy 0.5')"]
    side = Side("command", command, collect=lambda text: {"accuracy": float(text.split()[1])})
    assert run_once(side).values == {"accuracy": 0.5}


def test_prepare_runs_before_each_run_outside_the_measured_time(tmp_path: Path) -> None:
    calls: list[int] = []
    command = [sys.executable, "-S", "-c", "pass"]
    side = Side("prepared", command, prepare=lambda: calls.append(1))
    compare("prepare", side, Side("other", command), pairs=2, warmup=1)
    assert len(calls) == 3


def test_environment_reaches_the_run() -> None:
    command = [sys.executable, "-S", "-c", "import os; print(os.environ['ANSWER'])"]
    side = Side("env", command, env={"ANSWER": "42"}, collect=lambda text: {"answer": text.strip()})
    assert run_once(side).values == {"answer": "42"}


def test_a_failing_side_stops_the_comparison_with_its_last_words() -> None:
    with pytest.raises(BenchmarkError, match=r"(?s)failing ended with exit code 1.*no such luck"):
        run_once(Side("failing", fail))


def test_a_missing_program_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="missing could not be started"):
        run_once(Side("missing", ["/no/such/program"]))


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "child"
    parent = (
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
        "child.wait()"
    )
    with pytest.raises(BenchmarkError, match="longer than 2 s"):
        run_once(Side("slow", [sys.executable, "-S", "-c", parent]), timeout=2)
    wait_until_ended(int(pid_file.read_text()), 60)


def test_result_holds_samples_summaries_and_machine_but_no_path(tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = compare("result", sleeper("A", 0, log), sleeper("B", 0, log), pairs=2, warmup=0)
    path = result.save(tmp_path / "results" / "result.json")
    text = path.read_text()
    content = json.loads(text)
    assert content["ratio"]["seconds"]["n"] == 2
    assert [side["name"] for side in content["sides"]] == ["A", "B"]
    assert len(content["sides"][0]["samples"]) == 2
    assert {"processor", "cpus", "python", "commit", "load_before", "load_after"} <= set(
        content["machine"]
    )
    assert str(tmp_path) not in text
    assert sys.executable not in text


def test_table_shows_both_sides_and_the_ratio(tmp_path: Path) -> None:
    from rich.console import Console

    log = tmp_path / "log"
    result = compare("table", sleeper("A", 0, log), sleeper("B", 0, log), pairs=1, warmup=0)
    console = Console(width=120, record=True, file=(tmp_path / "out").open("w"))
    console.print(result.table())
    text = console.export_text()
    for words in ("table (1 pairs)", "median s", "IQR", "min - max", "peak RSS MB", "B / A"):
        assert words in text


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([2.0], Spread(1, 2.0, 2.0, 2.0, (2.0, 2.0))),
        ([1.0, 3.0], Spread(2, 2.0, 1.0, 3.0, (1.5, 2.5))),
        ([5.0, 1.0, 2.0, 4.0, 3.0], Spread(5, 3.0, 1.0, 5.0, (2.0, 4.0))),
    ],
)
def test_spread(numbers: list[float], expected: Spread) -> None:
    assert Spread.of(numbers) == expected


def test_wrong_use_is_refused() -> None:
    side = Side("same", [sys.executable, "-c", "pass"])
    with pytest.raises(ValueError, match="two different names"):
        compare("wrong", side, side)
    with pytest.raises(ValueError, match="no module-level function"):
        run_once(Side("lambda", lambda: None))
