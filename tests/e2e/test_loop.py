"""Ticks of the loop on the real stores of a project; test_monitoring.py tells the whole story."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.loop_kills import POINTS
from tests.support.project import Project

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]


def test_ticks_that_are_killed_train_nothing_twice(
    trained_project: Project, tmp_path: Path
) -> None:
    output = tmp_path / "kills.json"
    trained_project.warm("-m", "tests.support.loop_kills", str(output))
    result = json.loads(output.read_text())
    for tick in result["ticks"][1:]:
        assert tick["killed"] == -signal.SIGKILL, tick
        assert tick["recovered"] == [0, 0], tick
    seen = result["seen"]
    # Killed before the intent, nothing; before the run, within it, and after it: what became of it.
    assert seen["ends"].count("not_started") == 1
    assert seen["ends"].count("interrupted") == 1
    assert seen["ends"].count("unchanged") == 2 * len(POINTS) + 1
    assert len(seen["intents"]) == len(set(seen["intents"])) == len(seen["ends"])
    # One run for each intent but that of the tick that was killed before its run.
    assert len(seen["runs"]) == len(seen["intents"]) - 1
    assert set(seen["runs"]) < set(seen["intents"])


def test_a_schedule_runs_ticks_one_after_the_other_until_sigterm(trained_project: Project) -> None:
    """The ticks decide nothing, as no version is in production."""
    schedule = subprocess.Popen(
        [sys.executable, "-u", "run.py", "schedule", "--every", "1s"],
        cwd=trained_project.root,
        env=trained_project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert schedule.stdout is not None
    lines, n_ticks = [], 0
    for line in schedule.stdout:
        lines.append(line)
        if "no version is in production" in line:
            n_ticks += 1
            if n_ticks == 2:
                schedule.send_signal(signal.SIGTERM)
    assert schedule.wait() == 0
    assert any("were missed; one makes up for all" in line for line in lines)
    assert lines[-1] == "The schedule has ended.\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(schedule.pid, 0)
