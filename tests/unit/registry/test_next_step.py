"""The command that is suggested next."""

from types import SimpleNamespace
from typing import Any

import pytest

from registry import next_step, versions


@pytest.mark.parametrize(
    ("numbers", "command"),
    [((2, 1), "card 2"), ((), "--pipeline training")],
    ids=["all failed a gate", "no version"],
)
def test_without_a_version_that_may_be_staged(
    numbers: tuple[int, ...], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [SimpleNamespace(number=number, stage=None) for number in numbers]
    monkeypatch.setattr(versions, "list_versions", lambda _name: listed)
    monkeypatch.setattr(next_step, "gate_standing", lambda *_: SimpleNamespace(is_fit=False))
    registry: Any = SimpleNamespace(
        model_name="pets",
        log=SimpleNamespace(state=lambda: None),
        gate_standing=lambda _number: SimpleNamespace(is_fit=False),
        lacks_approval=lambda _version: False,
    )
    suggested = next_step.command_towards_production(registry)
    assert suggested == f"python run.py {command} --model pets"
