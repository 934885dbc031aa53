"""What the launcher grants a process: memory, time and GPUs, and what is said of it."""

import os
import sys
from pathlib import Path

import pytest

from cv_factory.errors import StackError
from cv_factory.processes.group import GroupProcess, Limits
from stacks.flavors.gpus import visible_gpus


def _run(source: str, limits: Limits) -> str:
    command = [sys.executable, "-c", source]
    process = GroupProcess(command, os.environ, Path.cwd(), limits)
    return process.describe(process.wait())


def test_more_memory_than_asked_for_ends_it() -> None:
    hog = "import time; block = b'x' * 200_000_000; time.sleep(60)"
    description = _run(hog, Limits(memory=100e6))
    assert "had asked for 100 MB (its resource 'memory')" in description


def test_memory_that_children_take_counts() -> None:
    hog = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        "\"import time; block = b'x' * 200_000_000; time.sleep(60)\"])"
    )
    assert "of memory and had asked for 100 MB" in _run(hog, Limits(memory=100e6))


def test_more_time_than_granted_ends_it() -> None:
    description = _run("import time; time.sleep(60)", Limits(seconds=0.3))
    assert "was killed after its time limit of 0.3 s" in description


def test_within_its_limits_it_ends_by_itself() -> None:
    assert _run("raise SystemExit(7)", Limits(memory=1e9, seconds=60)) == "ended with exit code 7"


@pytest.mark.parametrize(
    ("named", "count", "visible"), [(None, 2, "0,1"), ("3,1", 1, "3"), (None, 0, "")]
)
def test_a_step_sees_as_many_gpus_as_it_asks_for(
    tmp_path: Path, named: str | None, count: int, visible: str
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    assert visible_gpus("train", count, environment, tmp_path) == {"CUDA_VISIBLE_DEVICES": visible}


def test_without_a_gpu_it_is_told_that_it_runs_on_the_cpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert visible_gpus("train", 1, {}, tmp_path) == {}
    assert "Step 'train' asks for 1 GPU; this machine has none" in caplog.text


def test_more_gpus_than_there_are_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    with pytest.raises(StackError, match=r"Lower zenml\.resources\.train\.gpu_count"):
        visible_gpus("train", 2, {}, tmp_path)
