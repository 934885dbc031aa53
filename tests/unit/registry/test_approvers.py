"""A policy that nobody could change again is refused."""

from types import SimpleNamespace

import psutil
import pytest

from cv_factory.config.register import RegisterConfig
from cv_factory.errors import ConfigError
from registry import approvers
from registry.actor import Actor
from registry.approvers import check_approvers

ME = psutil.Process().username()


def check(monkeypatch: pytest.MonkeyPatch, names: list[str], present: tuple[str, ...] = ()) -> str:
    policy = SimpleNamespace(approvers=present)
    registry = SimpleNamespace(log=SimpleNamespace(state=lambda: SimpleNamespace(policy=policy)))
    monkeypatch.setattr(approvers, "ModelRegistry", lambda _name: registry)
    monkeypatch.setattr(approvers, "current_actor", lambda: Actor("system", ME))
    return check_approvers(RegisterConfig(approvers=names))


def test_an_approver_who_is_no_user_is_named_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typo = f"{ME}x"
    with pytest.raises(ConfigError, match=f"no system user '{typo}'. Did you mean '{ME}'"):
        check(monkeypatch, [ME, typo])
    assert check(monkeypatch, []) == ""
    assert check(monkeypatch, [ME]) == ""


def test_who_loses_the_right_to_change_the_policy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "daemon" if ME != "daemon" else "root"
    assert f"does not name you, {ME}" in check(monkeypatch, [other])
    # Who is no approver now changes nothing; and who left since is no reason to refuse a run.
    assert check(monkeypatch, [other], present=(other,)) == ""
    assert check(monkeypatch, ["gone"], present=("gone",)) == ""
