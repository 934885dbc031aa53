"""The step operator ``launcher``: how a step in its own process ends, and that it never stays."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from tests.support.launcher_runs import command, result
from tests.support.project import Project

_WAYS = ("return", "raise", "exit", "sys.exit", "kill")


@pytest.fixture
def output(project: Project) -> str:
    """What one client printed that ran a step of every way to end, and outlived each failure."""
    if "launcher" not in project.history:
        project.history["launcher"] = project.command(command(project, *_WAYS))
    return project.history["launcher"].stdout


@pytest.fixture
def outcome_by_way(output: str) -> dict[str, Any]:
    """What came of each of the ways."""
    outcomes: dict[str, Any] = result(output)
    return outcomes


def test_success_returns_the_outputs(outcome_by_way: dict[str, Any]) -> None:
    outcome = outcome_by_way["return"]
    assert outcome["raised"] is None
    assert (outcome["run"], outcome["step"]) == ("completed", "completed")
    observations = outcome["outputs"]["seen"]
    assert observations["own process"]
    assert observations["started by the client"]


def test_only_the_integrations_of_the_stack_are_imported(outcome_by_way: dict[str, Any]) -> None:
    # Both are installed, and have an integration that would import them.
    observations = outcome_by_way["return"]["outputs"]["seen"]
    assert (observations["torch"], observations["sklearn"]) == (False, False)


def test_output_of_the_step_is_output_of_the_client(output: str) -> None:
    assert [way for way in _WAYS if f"how={way}\n" in output] == list(_WAYS)


def test_exception_keeps_its_class_and_message(outcome_by_way: dict[str, Any]) -> None:
    outcome = outcome_by_way["raise"]
    assert outcome["raised"] == "TrainingError"
    assert outcome["message"] == outcome["stored"] == "the loss is not a number"
    assert (outcome["run"], outcome["step"]) == ("failed", "failed")


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("exit", "exit code 3"),
        ("sys.exit", "exit code 0"),
        ("kill", "SIGKILL: most often the kernel's out-of-memory killer"),
    ],
)
def test_death_without_exception_names_the_cause(
    outcome_by_way: dict[str, Any], way: str, words: str
) -> None:
    outcome = outcome_by_way[way]
    assert outcome["raised"] == "StepProcessError"
    assert words in outcome["message"]
    assert "'launched'" in outcome["message"]
    assert (outcome["run"], outcome["step"]) == ("failed", "failed")
    assert outcome["outputs"] == {}


@contextmanager
def _in_the_middle_of_a_step(
    project: Project,
) -> Iterator[tuple["subprocess.Popen[str]", list[psutil.Process]]]:
    """Yield a client whose step hangs, and the processes of the step."""
    with project.started(command(project, "hang")) as client:
        assert client.stdout is not None
        pids: list[int] = []
        for line in client.stdout:
            if line.startswith("HANGING "):
                pids = [int(word) for word in line.split()[1:]]
                break
        assert len(pids) == 2, "the step and its worker were not started"
        yield client, [psutil.Process(pid) for pid in pids]


def _assert_end(processes: list[psutil.Process]) -> None:
    """The step's grace period is longer than this: no SIGKILL is needed."""
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


def test_interrupt_ends_the_step_and_its_workers(project: Project) -> None:
    with _in_the_middle_of_a_step(project) as (client, processes):
        client.send_signal(signal.SIGINT)
        assert client.stdout is not None
        outcome = result(client.stdout.read())["hang"]
        _assert_end(processes)
    assert outcome["raised"] == "KeyboardInterrupt"
    assert (outcome["run"], outcome["step"]) == ("stopped", "stopped")


def test_step_ends_when_its_client_is_killed(project: Project) -> None:
    with _in_the_middle_of_a_step(project) as (client, processes):
        client.kill()
        client.wait(10)
        _assert_end(processes)
    # The dying step has still reported to ZenML: nothing seems to be running.
    reported = project.command(command(project, "statuses"))
    assert result(reported.stdout) == ["failed"]
