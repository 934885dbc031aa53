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
_ACTOR = Actor("system", ME)


def check(
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    present: tuple[str, ...] = (),
    actor: Actor = _ACTOR,
) -> str:
    policy = SimpleNamespace(approvers=present)
    registry = SimpleNamespace(log=SimpleNamespace(state=lambda: SimpleNamespace(policy=policy)))
    monkeypatch.setattr(approvers, "ModelRegistry", lambda _name: registry)
    monkeypatch.setattr(approvers, "current_actor", lambda: actor)
    return check_approvers(RegisterConfig(approvers=names))


def test_an_approver_who_is_no_user_is_named_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typo = f"{ME}x"
    with pytest.raises(ConfigError, match=f"no system user '{typo}'. Did you mean '{ME}'"):
        check(monkeypatch, [ME, typo])
    assert check(monkeypatch, []) == ""
    assert check(monkeypatch, [ME]) == ""


def test_a_server_shows_its_users_to_administrators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    user, actor = SimpleNamespace(is_admin=True), Actor("zenml server", "bob")
    monkeypatch.setattr(
        approvers, "Client", lambda: SimpleNamespace(active_user=user, list_users=0)
    )
    monkeypatch.setattr(approvers, "depaginate", lambda _list: [SimpleNamespace(name="ada")])
    with pytest.raises(ConfigError, match="no zenml server user 'adda'"):
        check(monkeypatch, ["adda", "bob"], actor=actor)
    user.is_admin = False
    assert check(monkeypatch, ["adda", "bob"], actor=actor) == ""


def test_who_loses_the_right_to_change_the_policy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "daemon" if ME != "daemon" else "root"
    assert f"does not name you, {ME}" in check(monkeypatch, [other])
    # Who is no approver now changes nothing; and who left since is no reason to refuse a run.
    assert check(monkeypatch, [other], present=(other,)) == ""
    assert check(monkeypatch, ["gone"], present=("gone",)) == ""
