"""The step operator ``launcher``: how a step in its own process ends, and that it never stays."""

import signal
from collections.abc import Iterable
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


def test_a_step_in_a_process_of_its_own_returns_and_ends_with_its_client(project: Project) -> None:
    """One client in new processes, whose start takes longer than all the rest, runs three times."""
    with project.started(command(project, "return", "hang", "hang")) as client:
        assert client.stdout is not None
        _assert_return(*_read_until(client.stdout, "RESULT "))

        processes = _read_processes(client.stdout)
        client.send_signal(signal.SIGINT)
        outcome = result(_read_until(client.stdout, "RESULT ")[-1])["hang"]
        _assert_end(processes)
        assert outcome["raised"] == "KeyboardInterrupt"
        assert (outcome["run"], outcome["step"]) == ("stopped", "stopped")

        processes = _read_processes(client.stdout)
        client.kill()
        client.wait(10)
        _assert_end(processes)
    # The dying step has still reported to ZenML: nothing seems to be running.
    reported = project.warm(*command(project, "statuses")[1:])
    assert result(reported.stdout) == ["completed", "stopped", "failed"]


def _assert_return(*lines: str) -> None:
    assert any(line.endswith("how=return\n") for line in lines), "the client prints what steps do"
    outcome = result(lines[-1])["return"]
    assert outcome["raised"] is None
    assert (outcome["run"], outcome["step"]) == ("completed", "completed")
    observations = outcome["outputs"]["seen"]
    assert observations["own process"]
    assert observations["started by the client"]
    # Both are installed, and have an integration that would import them.
    assert (observations["torch"], observations["sklearn"]) == (False, False)


def _read_until(output: Iterable[str], start: str) -> list[str]:
    """Return the lines that a client prints, the last of which begins like this."""
    lines = []
    for line in output:
        lines.append(line)
        if line.startswith(start):
            return lines
    raise AssertionError(f"the client ended without {start!r}:\n{''.join(lines)}")


def _read_processes(output: Iterable[str]) -> list[psutil.Process]:
    """Return a step that hangs, and its worker."""
    pids = _read_until(output, "HANGING ")[-1].split()[1:]
    assert len(pids) == 2
    return [psutil.Process(int(pid)) for pid in pids]


def _assert_end(processes: list[psutil.Process]) -> None:
    """The step's grace period is longer than this: no SIGKILL is needed."""
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive
