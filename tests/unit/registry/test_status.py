"""Whether what serves agrees with the registry, and what is suggested where it does not."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from cli.commands.status import command, describe_status
from cv_factory.deployment.traffic import Share, Traffic
from cv_factory.errors import ArtifactError, CVFactoryError
from registry import deployments, process_owner, status, versions
from registry.audit.log import AuditEntry
from registry.deployments import ServiceElsewhere
from registry.next_step import suggest_command
from registry.permissions import TransitionRefusedError
from registry.standing import GateStanding
from registry.status import ModelStatus, ServiceStatus, StageHolder, TransitionStatus

PRODUCTION, STAGING = StageHolder(5, "f5"), StageHolder(6, "f6")
SERVED = ServiceStatus("id5", "5", "f5", "http://127.0.0.1:3000", 1.0, True)
CANARY = replace(SERVED, id="id6", version="6", predictor="f6", weight=0.25)
SHADOW = replace(CANARY, weight=0.0, mirror_share=0.2)
STATUS = ModelStatus("pets", PRODUCTION, STAGING, (SERVED,))
DEPLOY = "python run.py --pipeline deployment --model pets --set model.version=5"


@pytest.mark.parametrize(
    "shown",
    [
        STATUS,
        ModelStatus("pets"),
        replace(STATUS, services=()),
        replace(STATUS, services=(CANARY, replace(SERVED, weight=0.75))),
        replace(STATUS, services=(SHADOW, SERVED)),
        replace(STATUS, services=(), elsewhere=(ServiceElsewhere("5", "f5", "sagemaker", "aws"),)),
    ],
)
def test_status_agrees(shown: ModelStatus) -> None:
    assert shown.agrees, shown.problems
    assert shown.to_dict()["agrees"] is True


@pytest.mark.parametrize(
    ("shown", "problem"),
    [
        (replace(STATUS, findings=("The log was cut.",)), "The log was cut."),
        (replace(STATUS, production=None), "No version is in production, but"),
        (
            replace(STATUS, production=STAGING, staging=None),
            "Version 6 is in production, but what serves is 5. Run: "
            + DEPLOY.replace("version=5", "version=6"),
        ),
        (
            replace(STATUS, services=(replace(SERVED, predictor="other"),)),
            f"Version 5 is in production, but what serves is 5. Run: {DEPLOY}",
        ),
        (
            replace(STATUS, production=STAGING, staging=None, is_deployable=False),
            "Version 6 is in production, but what serves is 5.",
        ),
        (
            replace(STATUS, services=(replace(SERVED, weight=0.0, is_running=False),)),
            f"Version 5 is in production, but what serves is nothing. Run: {DEPLOY}",
        ),
        (
            replace(STATUS, services=(replace(SERVED, is_running=False),)),
            "Version 5 is given 100% of the requests and does not answer. Run: "
            "zenml model-deployer models start id5",
        ),
        (
            replace(STATUS, is_deployable=False, services=(replace(SERVED, is_running=False),)),
            "Version 5 is given 100% of the requests and does not answer.",
        ),
        (
            replace(STATUS, staging=None, services=(CANARY, replace(SERVED, weight=0.75))),
            "Version 6, neither in production nor in staging, is given 25% of the requests. Run: "
            "python run.py withdraw 6 --reason WHY --model pets",
        ),
        (
            replace(STATUS, staging=None, services=(SHADOW, SERVED)),
            "Version 6, neither in production nor in staging, is given copies of 20% of the "
            "requests. Run: python run.py withdraw 6 --reason WHY --model pets",
        ),
        (
            replace(STATUS, services=(replace(SHADOW, is_running=False), SERVED)),
            "Version 6 is given copies of 20% of the requests and does not answer. Run: "
            "zenml model-deployer models start id6",
        ),
        (
            replace(STATUS, services=(SHADOW, replace(SERVED, weight=0.0))),
            f"Version 5 is in production, but what serves is nothing. Run: {DEPLOY}",
        ),
        (replace(STATUS, unrecorded_weight=0.1), "A service without a record in ZenML is given"),
        (
            replace(
                STATUS, services=(), elsewhere=(ServiceElsewhere("4", "f4", "sagemaker", "aws"),)
            ),
            "Version 5 is in production, and the model deployer sagemaker serves version 4. Run: "
            "python run.py status --model pets --stack aws",
        ),
    ],
)
def test_status_names_what_disagrees_and_the_command(shown: ModelStatus, problem: str) -> None:
    assert any(line.startswith(problem) for line in shown.problems), shown.problems
    assert not shown.agrees
    if not shown.is_deployable:
        refused = ("--pipeline deployment", "models start")
        assert not any(text in line for line in shown.problems for text in refused)


class _FakeRegistry:
    """A registry whose log holds a promotion and a deployment of version 5, or is damaged."""

    model_name = "pets"

    def __init__(self, problem: CVFactoryError | None = None) -> None:
        self._is_unfit = isinstance(problem, TransitionRefusedError)
        self._problem = None if self._is_unfit else problem
        self.log = self

    def check(self) -> tuple[AuditEntry, ...]:
        if self._problem is not None:
            raise self._problem
        change = {"version": 5, "from_stage": "staging", "to_stage": "production"}
        details: list[tuple[str, dict[str, Any]]] = [
            ("intent", {"action": "promote", "changes": [change]}),
            ("done", {"action": "promote", "intent": 1}),
            ("deployed", {"version": 5, "service": "id5"}),
        ]
        return tuple(
            AuditEntry(n, "", kind, "Ada", f"2026-11-28T12:00:0{n}+00:00", "why", detail)
            for n, (kind, detail) in enumerate(details, start=1)
        )

    def detect_outside_changes(self) -> tuple[str, ...]:
        return ()

    def require_deployable(self, version: Any) -> GateStanding:
        if self._is_unfit:
            raise TransitionRefusedError("Version 5 failed 1 of 3 gates.")
        return GateStanding(version.number, "f5")


@pytest.mark.parametrize(
    "problem",
    [
        None,
        ArtifactError("Audit log: entry 3 is missing."),
        TransitionRefusedError("Version 5 failed 1 of 3 gates."),
    ],
)
def test_status_says_since_when_and_by_whom_unless_the_log_is_damaged(
    monkeypatch: pytest.MonkeyPatch, problem: CVFactoryError | None
) -> None:
    version = SimpleNamespace(number=5, stage="production", run_metadata={"predictor": "f5"})
    service = SimpleNamespace(
        uuid="id5",
        service_name="v5",
        config=SimpleNamespace(model_version="5", predictor="f5"),
        client_url="http://127.0.0.1:3000",
        is_running=True,
        is_deployed=True,
    )
    endpoint = SimpleNamespace(traffic=lambda: Traffic({"v5": Share(1.0)}))
    deployer = SimpleNamespace(services=lambda _: [service], service_endpoint=lambda _: endpoint)
    monkeypatch.setattr(status, "ModelRegistry", lambda _: _FakeRegistry(problem))
    monkeypatch.setattr(versions, "list_versions", lambda _: [version])
    monkeypatch.setattr(deployments, "find_deployer", lambda: deployer)
    monkeypatch.setattr(deployments, "services_elsewhere", lambda _: ())
    loaded = status.load_status("pets")
    if problem is not None:
        assert loaded.problems == (str(problem),)
        return
    assert loaded.production == replace(PRODUCTION, since="2026-11-28T12:00:01+00:00", who="Ada")
    assert loaded.services == (replace(SERVED, since="2026-11-28T12:00:03+00:00", who="Ada"),)
    assert loaded.agrees


class _MovingRegistry(_FakeRegistry):
    """A registry with an open promotion, which may end while outside changes are looked for."""

    def __init__(self, *, ends: bool) -> None:
        super().__init__()
        self._ends = ends
        owner = process_owner.current_process() | {"process": -1}
        intent, self._done, _ = super().check()
        self._entries = [replace(intent, detail={**intent.detail, "owner": owner})]

    def check(self) -> tuple[AuditEntry, ...]:
        return tuple(self._entries)

    def detect_outside_changes(self) -> tuple[str, ...]:
        if self._ends and len(self._entries) == 1:
            self._entries.append(self._done)
        return ()


def _load_status_beside(
    monkeypatch: pytest.MonkeyPatch, *, is_running: bool, ends: bool
) -> ModelStatus:
    registry = _MovingRegistry(ends=ends)
    monkeypatch.setattr(status, "ModelRegistry", lambda _: registry)
    monkeypatch.setattr(process_owner, "_is_process_alive", lambda *_: is_running)
    stage = "production" if ends else "archived"
    version = SimpleNamespace(number=5, stage=stage, run_metadata={"predictor": "f5"})
    monkeypatch.setattr(versions, "list_versions", lambda _: [version])
    monkeypatch.setattr(status, "_read_services", lambda *_: ((SERVED,), 0.0))
    monkeypatch.setattr(deployments, "services_elsewhere", lambda _: ())
    return status.load_status("pets")


def test_a_promotion_that_ends_while_the_status_is_read_was_not_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = _load_status_beside(monkeypatch, is_running=False, ends=True)
    assert loaded.agrees, loaded.problems


def test_between_two_moves_of_a_promotion_no_service_is_to_be_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = _load_status_beside(monkeypatch, is_running=True, ends=False)
    assert loaded.production is None
    assert loaded.problems == ()
    assert loaded.transition == TransitionStatus("promote", "Ada", 1, True)
    monkeypatch.setattr("cli.commands.status.list_models", lambda *_: ["pets"])
    result = CliRunner().invoke(command, [], standalone_mode=False)
    assert result.return_value == 1
    line = "IN PROGRESS promote by Ada (audit log entry 1): look again in a moment."
    assert line in result.output
    assert "DISAGREES" not in result.output


def test_after_an_interrupted_promotion_the_command_that_ends_it_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = _load_status_beside(monkeypatch, is_running=False, ends=False)
    assert loaded.problems == (
        "promote by Ada (audit log entry 1) was interrupted. To finish or undo it, run: python "
        "run.py history --model pets",
    )
    assert "IN PROGRESS" not in describe_status(loaded)
    assert not loaded.agrees


@pytest.mark.parametrize(
    ("stage", "is_fit", "lacks_approval", "command"),
    [
        ("staging", True, False, "--pipeline deployment --model pets"),
        ("staging", True, True, "approve 3 --reason WHY --model pets"),
        ("archived", True, False, "stage 3 --model pets"),
        ("none", True, True, "stage 3 --model pets"),
        ("none", False, False, "card 3 --model pets"),
        ("production", True, False, "status --model pets"),
    ],
)
def test_next_command_is_one_that_is_not_refused(
    stage: str, is_fit: bool, lacks_approval: bool, command: str
) -> None:
    suggested = suggest_command("pets", 3, stage, is_fit=is_fit, lacks_approval=lacks_approval)
    assert suggested == f"python run.py {command}"
