"""The audit log says which version is fit, who may decide, and what was changed beside it."""

import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from zenml.enums import StoreType

from cv_factory.artifacts.files import canonical_json
from cv_factory.evaluation.gate_verdict import GateVerdict
from registry.actor import Actor, current_actor
from registry.audit.log import AuditEntry
from registry.audit.state import DELETED, LogState, Policy, replay
from registry.outside_changes import (
    OutsideChange,
    ZenMLVersion,
    compare_aliases,
    compare_versions,
    describe_change,
)
from registry.permissions import (
    TransitionRefusedError,
    require_approver,
    require_other_than_author,
)
from registry.standing import describe_unfit, find_approval, gate_standing

ADA, BOB = Actor("system", "ada"), Actor("system", "bob")
GATE = "accuracy at least 0.9"
PASSED = GateVerdict(GATE, "accuracy", 0.9, 0.95, "passed", "accuracy is 0.9500")
FAILED = GateVerdict(GATE, "accuracy", 0.9, 0.5, "failed", "accuracy is 0.5000")
WORSE = GateVerdict(GATE, "accuracy", 0.9, 0.4, "failed", "accuracy is 0.4000")


class Log:
    """Entries as they are read back."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    def add(self, kind: str, actor: Actor = BOB, **detail: Any) -> "Log":
        detail = json.loads(canonical_json({**detail, "identity": asdict(actor)}))
        number = len(self.entries) + 1
        self.entries.append(AuditEntry(number, "", kind, actor.name, "now", "why", detail))
        return self

    def register(self, version: int, predictor: str, *verdicts: GateVerdict, **more: Any) -> "Log":
        return self.add(
            "registered",
            version=version,
            predictor=predictor,
            verdicts=[asdict(verdict) for verdict in verdicts],
            **{"needs_approval": False, "metadata": {"predictor": predictor}, **more},
        )

    def move(
        self, *moves: tuple[int, str, str], action: str = "promote", end: str = "done"
    ) -> "Log":
        changes = [{"version": v, "from_stage": a, "to_stage": b} for v, a, b in moves]
        self.add("intent", action=action, changes=changes, owner={})
        return self.add(end, intent=len(self.entries), action=action) if end else self

    def override(self, predictor: str, verdict: GateVerdict, actor: Actor = BOB) -> "Log":
        return self.add("override", actor, version=1, predictor=predictor, verdict=asdict(verdict))

    def policy(self, *approvers: str, separate: bool = False) -> "Log":
        return self.add(
            "policy",
            approvers=list(approvers),
            manual_approval=False,
            separate_approver=separate,
        )

    def outside(self, *changes: OutsideChange) -> "Log":
        return self.add("outside", changes=[change.to_detail() for change in changes])

    @property
    def state(self) -> LogState:
        return replay(self.entries)


def zenml(stage: str = "none", predictor: str = "p1") -> ZenMLVersion:
    return ZenMLVersion(stage, {"predictor": predictor}, None, "2026-11-28 12:00")


def test_the_verdicts_on_the_predictor_decide_and_not_the_stage():
    log = Log().register(1, "p1", PASSED).register(2, "p2", PASSED, FAILED)
    assert gate_standing(log.state, 1).is_fit
    log.outside(OutsideChange("stage", 2, "none", "production"))
    standing = gate_standing(log.state, 2)
    assert (standing.is_fit, standing.failed) == (False, (GATE,))
    text = describe_unfit(standing, "digits")
    assert "digits version 2 failed 1 of 2 gates" in text
    assert f"python run.py override 2 --model digits --gate '{GATE}' --reason WHY" in text


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        (Log(), "was not registered"),
        (Log().outside(OutsideChange("stage", 1, "none", "staging")), "was not registered"),
        (Log().register(1, "p1"), "was judged by no gate"),
        (
            Log().register(1, "p1", PASSED).outside(OutsideChange("deleted", 1, "none", DELETED)),
            "was deleted",
        ),
    ],
)
def test_a_version_without_verdicts_is_not_fit(log, problem):
    standing = gate_standing(log.state, 1)
    assert not standing.is_fit
    assert problem in describe_unfit(standing, "digits")


def test_the_last_verdicts_on_a_predictor_count_under_any_number():
    log = Log().register(1, "p1", PASSED)
    log.add("judged", version=1, predictor="p1", verdicts=[asdict(FAILED)], needs_approval=True)
    assert not gate_standing(log.state, 1).is_fit
    assert log.state.versions[1].needs_approval
    log.register(7, "p1", PASSED)
    assert gate_standing(log.state, 1).is_fit


def test_an_override_counts_for_the_very_verdict_alone():
    log = Log().register(1, "p1", FAILED).override("p1", FAILED)
    standing = gate_standing(log.state, 1)
    assert standing.is_fit
    assert [entry.number for entry in standing.overrides] == [2]
    assert not gate_standing(log.register(2, "p2", FAILED).state, 2).is_fit, "another predictor"
    log.add("judged", version=1, predictor="p1", verdicts=[asdict(WORSE)], needs_approval=False)
    assert not gate_standing(log.state, 1).is_fit, "it failed anew"


def test_a_number_that_zenml_gives_again_inherits_nothing():
    log = Log().register(1, "p1", PASSED).add("approved", version=1, predictor="p1")
    log.move((1, "none", "production")).outside(OutsideChange("deleted", 1, "production", DELETED))
    log.register(1, "p2", FAILED)
    state = log.state
    assert state.stages == {1: "none"}
    assert not gate_standing(state, 1).is_fit
    assert find_approval(state, 1) is None
    log.outside(OutsideChange("deleted", 1, "none", DELETED)).register(1, "p1", PASSED)
    assert gate_standing(log.state, 1).is_fit
    assert find_approval(log.state, 1) is None, "another run made it"


def test_an_approver_decides_by_the_authenticated_name():
    policy = Log().policy("ada").state.policy
    require_approver(policy, ADA, None, "approve")
    with pytest.raises(TransitionRefusedError, match=r"You are bob .* approvers are ada"):
        require_approver(policy, BOB, "ada", "approve")
    with pytest.raises(TransitionRefusedError, match="--by names eve"):
        require_approver(policy, ADA, "eve", "approve")
    require_approver(Policy(), BOB, "eve", "approve")


def test_the_author_does_not_approve_where_the_policy_says_so():
    policy = Policy(separate_approver=True)
    versions = Log().register(1, "p1", PASSED).state.versions
    with pytest.raises(TransitionRefusedError, match="trained version 1"):
        require_other_than_author(policy, BOB, versions[1], 1, "approve")
    require_other_than_author(policy, ADA, versions[1], 1, "approve")
    require_other_than_author(Policy(), BOB, versions[1], 1, "approve")
    detail = {"version": 1, "predictor": "p1", "verdicts": [asdict(PASSED)]}
    old = AuditEntry(1, "", "registered", "run", "now", "as an older release logged it", detail)
    with pytest.raises(TransitionRefusedError, match="did not log who trained it"):
        require_other_than_author(policy, ADA, replay([old]).versions[1], 1, "approve")


def test_approvals_and_overrides_of_people_who_may_not_decide_do_not_count():
    log = Log().register(1, "p1", FAILED).override("p1", FAILED, BOB)
    log.add("approved", BOB, version=1, predictor="p1")
    assert find_approval(log.state, 1)
    log.policy("ada")
    assert find_approval(log.state, 1) is None
    assert not gate_standing(log.state, 1).is_fit
    log.add("approved", ADA, version=1, predictor="p1").override("p1", FAILED, ADA)
    assert find_approval(log.state, 1)
    assert gate_standing(log.state, 1).is_fit


def test_the_log_leads_to_the_stages():
    log = Log().register(1, "p1", PASSED).register(2, "p2", PASSED)
    log.move((1, "none", "production"))
    log.move((1, "production", "archived"), (2, "none", "production"))
    log.move((1, "archived", "staging"), end="undone")
    assert log.state.stages == {1: "archived", 2: "production"}
    log.outside(OutsideChange("stage", 1, "archived", "staging"))
    assert log.state.versions[1].is_moved_outside
    log.move((1, "staging", "none"), action="reject")
    assert log.state.versions[1].rejection is log.entries[-2]
    log.move((1, "none", "staging"), action="stage")
    assert log.state.versions[1].rejection is None
    assert not log.state.versions[1].is_moved_outside


def test_changes_beside_the_registry_are_named_once():
    log = Log().register(1, "p1", PASSED, artifacts={"predictor": "a1"})
    log.register(2, "p2", PASSED).move((1, "none", "production"))
    linked = ZenMLVersion("production", {"predictor": "p1"}, {"predictor": ("a1",)}, "")
    assert not list(compare_versions(log.state, {1: linked, 2: zenml(predictor="p2")}))
    bad = {
        1: ZenMLVersion("archived", {"predictor": "evil"}, {"predictor": ("a1", "a9")}, "noon"),
        3: zenml("production"),
    }
    changes = list(compare_versions(log.state, bad))
    assert [str(change) for change in changes] == [
        "version 1 production → archived (ZenML says at noon, not by whom)",
        "version 1, metadata predictor: p1 → evil; restored",
        "version 1, artifact predictor: a1 → a1, a9; restored",
        "version 2 (none) was deleted from ZenML",
        "version 3 none → production (ZenML says at 2026-11-28 12:00, not by whom)",
    ]
    assert describe_change(changes[0].to_detail()) == str(changes[0])
    log.outside(*changes)
    restored = {
        1: ZenMLVersion("archived", {"predictor": "p1"}, {"predictor": ("a1",)}, ""),
        3: zenml("production"),
    }
    assert not list(compare_versions(log.state, restored))


def test_an_artifact_that_was_deleted_is_named_once():
    log = Log().register(1, "p1", PASSED, artifacts={"predictor": "a1"})
    present = {1: ZenMLVersion("none", {"predictor": "p1"}, {"predictor": (DELETED,)}, "")}
    (change,) = compare_versions(log.state, present)
    assert not change.is_restored
    assert not list(compare_versions(log.outside(change).state, present))
    log.add(
        "judged",
        version=1,
        predictor="p1",
        verdicts=[asdict(PASSED)],
        needs_approval=False,
        artifacts={"predictor": "a2"},
    )
    assert log.state.versions[1].artifacts == {"predictor": "a2"}, "a run made it again"


def test_versions_on_their_way_are_no_outside_changes():
    log = Log().register(1, "p1", PASSED).move((1, "none", "production"), end="")
    assert not list(compare_versions(log.state, {1: zenml("production"), 2: zenml()}))
    assert not list(compare_aliases(log.state, {"production": 2}))


@pytest.mark.parametrize(
    ("aliases", "change"),
    [
        ({"production": 1}, None),
        ({"production": 2}, "alias production named version 2 instead of version 1"),
        ({"production": None}, "named no version of the registry instead of version 1"),
        ({}, "alias production named nothing instead of version 1"),
        ({"production": 1, "staging": 2}, "alias staging named version 2 instead of no version"),
    ],
)
def test_an_alias_of_mlflow_names_the_version_with_the_stage(aliases, change):
    log = Log().register(1, "p1", PASSED).register(2, "p2", PASSED)
    changes = list(compare_aliases(log.move((1, "none", "production")).state, aliases))
    assert len(changes) == (change is not None)
    if change:
        assert change in str(changes[0])


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        (StoreType.REST, Actor("zenml server", "ada@example.org")),
        (StoreType.SQL, Actor("system", psutil.Process().username())),
    ],
)
def test_the_actor_is_who_the_server_or_the_system_says(monkeypatch, store, expected):
    client = SimpleNamespace(
        zen_store=SimpleNamespace(type=store), active_user=SimpleNamespace(name="ada@example.org")
    )
    monkeypatch.setattr("registry.actor.Client", lambda: client)
    monkeypatch.setenv("LOGNAME", "eve")
    monkeypatch.setenv("USER", "eve")
    assert current_actor() == expected
