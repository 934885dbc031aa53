"""What ``tick`` says, and which words it and ``schedule`` refuse."""

import sys

import pytest
from click.testing import CliRunner

from cli.commands import schedule, tick
from cv_factory.monitoring.decisions import Check, Decision
from registry.loop import TickResult

_RESULT = TickResult(
    Check("monitoring due", True, "the model was never monitored"),
    Decision(
        "start_rollout",
        "version 2 passed its gates",
        2,
        (Check("challenger", True, "it is there"),),
    ),
    "passed",
)


def test_a_dry_run_explains_every_condition() -> None:
    assert tick.describe_tick("digits", _RESULT, dry_run=True).splitlines() == [
        "\x1b[1mdigits\x1b[0m: start rollout. version 2 passed its gates",
        "  monitoring would run first: the model was never monitored",
        "  retraining: passed",
        "  yes challenger         it is there",
        "Nothing was changed (--dry-run).",
    ]


def test_a_tick_says_what_it_did() -> None:
    assert tick.describe_tick("digits", _RESULT, dry_run=False).splitlines()[1:] == [
        "  monitoring was run first: the model was never monitored",
        "  retraining: passed",
    ]


@pytest.mark.parametrize("arguments", [["--resume"], ["--reason", "it is better"]])
def test_resume_needs_its_reason(arguments: list[str]) -> None:
    result = CliRunner().invoke(tick.command, arguments)
    assert (result.exit_code, "go together" in result.output) == (2, True)


@pytest.mark.parametrize("interval", ["15", "0m", "m", "1w", "-5m"])
def test_an_interval_is_a_number_and_a_unit(interval: str) -> None:
    result = CliRunner().invoke(schedule.command, ["--every", interval])
    assert (result.exit_code, "such as 30s, 15m" in result.output) == (2, True)


def test_ctrl_c_reaches_a_tick_of_a_schedule_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The terminal sends it to the whole process group; the schedule passes it on."""
    is_leader = "import os, sys; sys.exit(os.getpgrp() != os.getpid())"
    schedule._run([sys.executable, "-c", is_leader])
    assert capsys.readouterr().err == ""
