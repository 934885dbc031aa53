"""The step operator ``launcher``: how a step in its own process ends, and that it never stays."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from tests.support.launcher_runs import command, result
from tests.support.project import Project

#: Ways for a step to end without a result, and what the error says where there is none.
_DEATHS = {
    "exit": "exit code 3",
    "sys.exit": "exit code 0",
    "kill": "SIGKILL: most often the kernel's out-of-memory killer",
}


def test_a_step_returns_from_its_own_process(project: Project) -> None:
    client = project.command(command(project, "return"))
    outcome = result(client.stdout)["return"]
    assert "how=return\n" in client.stdout, "output of the step is output of the client"
    assert outcome["raised"] is None
    assert (outcome["run"], outcome["step"]) == ("completed", "completed")
    observations = outcome["outputs"]["seen"]
    assert observations["own process"]
    assert observations["started by the client"]
    # Both are installed, and have an integration that would import them.
    assert (observations["torch"], observations["sklearn"]) == (False, False)


def test_a_client_outlives_each_failure_of_a_step_and_names_its_cause(project: Project) -> None:
    client = project.warm(*command(project, "raise", *_DEATHS)[1:])
    outcomes: dict[str, Any] = result(client.stdout)
    assert [way for way in ("raise", *_DEATHS) if f"how={way}\n" in client.stdout] == [
        "raise",
        *_DEATHS,
    ]
    raised = outcomes["raise"]
    assert raised["raised"] == "TrainingError"
    assert raised["message"] == raised["stored"] == "the loss is not a number"
    assert (raised["run"], raised["step"]) == ("failed", "failed")
    for way, words in _DEATHS.items():
        outcome = outcomes[way]
        assert outcome["raised"] == "StepProcessError", way
        assert words in outcome["message"], way
        assert "'launched'" in outcome["message"], way
        assert (outcome["run"], outcome["step"]) == ("failed", "failed"), way
        assert outcome["outputs"] == {}, way


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
    reported = project.warm(*command(project, "statuses")[1:])
    assert result(reported.stdout) == ["failed"]
