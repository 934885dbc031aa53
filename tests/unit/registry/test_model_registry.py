"""What the registry logs of versions, on an audit log of its own and no other store."""

import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.evaluation.gate_verdict import GateVerdict
from registry import (
    monitoring_windows,
    next_step,
    process_owner,
    register,
    versions,
    zenml_state,
)
from registry.actor import Actor
from registry.audit.log import AuditEntry, AuditLog, LogConflictError
from registry.audit.log_files import LocalLogFiles, has_log, open_log_files
from registry.model_registry import ModelRegistry
from registry.next_step import find_displaced_version
from registry.outside_changes import ZenMLVersion, compare_versions
from registry.permissions import TransitionRefusedError
from registry.registry_log import RegistryLog
from registry.stages import StageTransitions

PASSED = GateVerdict("accuracy at least 0.9", "accuracy", 0.9, 0.95, "passed", "it is 0.9500")
FAILED = GateVerdict("accuracy at least 0.9", "accuracy", 0.9, 0.5, "failed", "it is 0.5000")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    registry = ModelRegistry.__new__(ModelRegistry)
    mirror: Any = SimpleNamespace(log_head=lambda: None, store_log_head=lambda *_: None)
    registry.model_name = "pets"
    registry.log = RegistryLog("pets", AuditLog(LocalLogFiles(tmp_path)), mirror)
    registry.log.__dict__["actor"] = Actor("system", "ada")
    monkeypatch.setattr(zenml_state, "read_contents", _read_contents)
    return registry


def _read_contents(version: Any) -> dict[str, Any]:
    return {"metadata": version.run_metadata, "artifacts": version.artifacts}


def _version(number: int, run: str, artifact: str) -> Any:
    metadata = {"predictor": f"p{number}", versions.RUN: run}
    return SimpleNamespace(
        number=number, run_metadata=metadata, artifacts={versions.PREDICTOR: artifact}
    )


def _register(registry: ModelRegistry, version: Any, verdict: GateVerdict, run: str) -> None:
    registry.record_registration(
        version, f"p{version.number}", [verdict], run, needs_approval=False
    )


def test_a_version_that_a_later_run_made_complete_again_is_no_outside_change(
    registry: ModelRegistry,
) -> None:
    """The run that made it was deleted from ZenML: its run and artifacts are those of the later."""
    _register(registry, _version(1, "run-1", "a1"), PASSED, "run-1")
    again = _version(1, "run-2", "a2")
    for _ in range(2):
        _register(registry, again, PASSED, "run-2")
    assert [entry.kind for entry in registry.log.entries()] == ["registered", "judged"]
    artifacts = {name: (artifact,) for name, artifact in again.artifacts.items()}
    present = {1: ZenMLVersion("none", again.run_metadata, artifacts, "")}
    assert not list(compare_versions(registry.log.state(), present))


def test_something_is_recorded_although_another_process_logs_something_meanwhile(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, conflicts = AuditLog.append, list(range(9))

    def conflict(*arguments: Any) -> AuditEntry:
        if conflicts:
            conflicts.pop()
            raise LogConflictError("at the same time")
        return append(*arguments)

    monkeypatch.setattr(AuditLog, "append", conflict)
    assert registry.log.record("stopped", None, "zenml", {"version": 1}).number == 1


@pytest.mark.parametrize("is_same_test", [True, False])
@pytest.mark.parametrize(("verdict", "is_fit"), [(PASSED, True), (FAILED, False)])
def test_the_run_that_pushed_a_version_out_of_staging_says_so_and_no_later_one(
    registry: ModelRegistry,
    monkeypatch: pytest.MonkeyPatch,
    verdict: GateVerdict,
    is_fit: bool,
    is_same_test: bool,
) -> None:
    for number, verdicts in ((1, verdict), (2, PASSED)):
        _register(registry, _version(number, f"run-{number}", f"a{number}"), verdicts, "run")
    moves = ((1, "staging", "archived"), (2, "none", "staging"))
    changes = [{"version": v, "from_stage": a, "to_stage": b} for v, a, b in moves]
    detail = {"action": "stage", "changes": changes}
    registry.log.append(registry.log.entries(), "intent", "run-2", "all gates passed", detail)
    accuracies = {1: 0.98, 2: 0.97}
    monkeypatch.setattr(next_step, "_accuracy", lambda _, number: accuracies[number])
    monkeypatch.setattr(next_step, "_has_same_test_images", lambda *_: is_same_test)
    monkeypatch.setattr(registry, "stages", lambda: {1: "archived", 2: "staging"})
    displaced = find_displaced_version(registry, 2, "run-2")
    assert displaced is not None
    assert (displaced.version, displaced.is_fit) == (1, is_fit)
    assert displaced.is_better == displaced.has_same_test_images == is_same_test
    assert find_displaced_version(registry, 2, "run-3") is None
    assert find_displaced_version(registry, 1, "run-2") is None
    monkeypatch.setattr(registry, "stages", lambda: {2: "staging"})
    assert find_displaced_version(registry, 2, "run-2") is None, "it was deleted"


def _begin(registry: ModelRegistry, action: str, *moves: tuple[int, str, str]) -> AuditEntry:
    """Log the intent of a transition that a living process of another id has begun."""
    changes = [{"version": v, "from_stage": a, "to_stage": b} for v, a, b in moves]
    owner = process_owner.current_process() | {"process": os.getppid()}
    owner["process_started"] = process_owner._start_time(owner["process"])
    detail = {"action": action, "changes": changes, "owner": owner}
    return registry.log.append(registry.log.entries(), "intent", "ada", "why", detail)


def _promote(registry: ModelRegistry, *moves: tuple[int, str, str]) -> None:
    end = {"intent": _begin(registry, "promote", *moves).number, "action": "promote"}
    registry.log.append(registry.log.entries(), "done", "ada", "why", end)


@pytest.fixture
def three_versions(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Return ZenML's stages of versions 1, 2, which replaced it in production, and 3."""
    stages = {1: "archived", 2: "production", 3: "staging"}
    for number in stages:
        _register(registry, _version(number, f"run-{number}", f"a{number}"), PASSED, "run")
    _promote(registry, (1, "staging", "production"))
    _promote(registry, (1, "production", "archived"), (2, "staging", "production"))
    present = {n: SimpleNamespace(number=n, fingerprint=f"p{n}") for n in stages}
    monkeypatch.setattr(versions, "get_version", lambda _, number: present[number])
    monkeypatch.setattr(versions, "load_predictor", lambda version: version)
    monkeypatch.setattr(registry, "stages", lambda: dict(stages))
    registry._transitions = StageTransitions(registry.log._log, registry, registry.log._mirror)
    return stages


def test_beside_a_promotion_the_version_to_go_back_to_is_that_of_before(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch, three_versions: dict[int, str]
) -> None:
    """Monitoring recommends a rollback or, without such a version, a retraining."""
    monkeypatch.setattr(monitoring_windows, "ModelRegistry", lambda _: registry)
    before = dict(three_versions)
    _begin(registry, "promote", (2, "production", "archived"), (3, "staging", "production"))
    entries = registry.log.entries()
    three_versions[2] = "archived"
    assert registry.settled_stages() == before
    assert registry.rollback_target() == 1
    assert monitoring_windows._has_predecessor("pets")
    assert registry.log.entries() == entries


def test_stages_are_read_again_where_a_transition_begins_meanwhile(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch, three_versions: dict[int, str]
) -> None:
    before, begun = dict(three_versions), list[AuditEntry]()
    moves = (2, "production", "archived"), (3, "staging", "production")

    def stages() -> dict[int, str]:
        if not begun:
            begun.append(_begin(registry, "promote", *moves))
            three_versions[2] = "archived"
        return dict(three_versions)

    monkeypatch.setattr(registry, "stages", stages)
    assert registry.settled_stages() == before


@pytest.mark.parametrize("is_number_given_again", [False, True])
@pytest.mark.parametrize(("predictor", "is_production"), [("p1", True), ("p2", False)])
def test_the_predictor_of_a_deleted_production_version_is_registered_again(
    registry: ModelRegistry,
    monkeypatch: pytest.MonkeyPatch,
    predictor: str,
    is_production: bool,
    is_number_given_again: bool,
) -> None:
    """Relative gates compare with what was deleted: nothing but that very predictor passes them."""
    present: list[Any] = []
    _register(registry, _version(1, "run-1", "a1"), PASSED, "run-1")
    detail: dict[str, Any] = {
        "action": "promote",
        "changes": [{"version": 1, "from_stage": "staging", "to_stage": "production"}],
    }
    intent = registry.log.append(registry.log.entries(), "intent", "ada", "why", detail)
    end = {"intent": intent.number, "action": "promote"}
    registry.log.append(registry.log.entries(), "done", "ada", "why", end)
    deleted = {"what": "deleted", "version": 1, "from": "production", "to": "deleted"}
    registry.log.append(registry.log.entries(), "outside", "ada", "why", {"changes": [deleted]})
    if is_number_given_again:
        present.append(SimpleNamespace(number=1, stage="archived"))
        detail = {"version": 1, "predictor": predictor, "verdicts": [asdict(PASSED)]}
        registry.log.append(registry.log.entries(), "registered", "ada", "why", detail)
    monkeypatch.setattr(versions, "list_versions", lambda _: present)
    monkeypatch.setattr(versions, "find_production", lambda _: None)
    with pytest.raises(TransitionRefusedError, match="no earlier production version"):
        registry.rollback_target()
    monkeypatch.setattr(register, "judge", lambda _, evidence: evidence)
    candidate: Any = SimpleNamespace(
        evaluation=None,
        report=SimpleNamespace(expectations=[]),
        predictor=SimpleNamespace(fingerprint=predictor),
    )
    gates: Any = [SimpleNamespace(bound=("max_drop_vs_production", 0.01))]
    evidence: Any = register._judge(candidate, gates, EvaluateConfig(), registry)
    assert evidence.is_production is is_production
    assert ("was deleted" in evidence.production_problem) is not is_production


def test_no_name_leads_out_of_the_folder_of_the_logs(tmp_path: Path) -> None:
    store: Any = SimpleNamespace(path=str(tmp_path))
    open_log_files(store, "pets").create("00000001.json", b"{}")
    open_log_files(store, "../elsewhere").create("00000001.json", b"{}")
    assert has_log(store, "pets")
    assert not has_log(store, "../elsewhere")


def test_a_version_that_another_stack_registered_is_registered_here_with_its_stage(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each artifact store has a log of its own; the versions are ZenML's."""
    version = _version(1, "run-1", "a1")
    change = {"what": "stage", "version": 1, "from": "none", "to": "staging", "is_restored": False}
    registry.log.append((), "outside", "run-2", "found", {"changes": [change]})
    monkeypatch.setattr(versions, "list_versions", lambda _: [version])
    monkeypatch.setattr(versions, "find_version", lambda *_: version)
    assert registry.find_version("p1") is version
    _register(registry, version, PASSED, "run-2")
    logged = registry.log.state().versions[1]
    assert (logged.predictor, logged.stage, logged.is_moved_outside) == ("p1", "staging", True)
    assert registry.gate_standing(1).is_fit
    assert registry.find_version("p2") is None, "the tag of a logged version decides nothing"


def test_what_another_process_appends_meanwhile_is_no_cut_log(tmp_path: Path) -> None:
    audit = AuditLog(LocalLogFiles(tmp_path))
    head: list[tuple[int, str]] = []

    def read_head() -> tuple[int, str]:
        """Return the head, and let another process append an entry right after."""
        current = head[-1]
        other = audit.append(audit.entries(), "stopped", "bob", "zenml", {"version": 1})
        head.append((other.number, other.sha256))
        return current

    mirror: Any = SimpleNamespace(log_head=read_head)
    first = audit.append((), "started", "ada", "zenml", {"version": 1})
    head.append((first.number, first.sha256))
    log = RegistryLog("pets", audit, mirror)
    assert [len(log.check()) for _ in range(2)] == [2, 3]
