"""Rollouts on an audit log of their own, with a deployer that starts nothing."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from click.testing import CliRunner

from cli import rollouts as acting
from cli.commands.rollout import command
from cli.options import RunOptions
from cli.pipeline_config import ZenMLConfig
from cli.pipelines import deployment as deployment_pipeline
from cv_factory.config.deployment import DeploymentPipelineConfig
from cv_factory.config.rollout import RolloutConfig
from cv_factory.deployment.deployment import Deployment
from cv_factory.deployment.endpoint import Endpoint, ServiceHealth
from cv_factory.deployment.traffic import Share, Traffic
from cv_factory.deployment.verify import VerificationError, VerificationResult
from cv_factory.errors import StackError
from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.rollout import RolloutDecision
from cv_factory.serving.service_counters import ServiceCounters
from registry import deployments, rollouts
from registry.actor import Actor
from registry.audit.log import AuditLog, LogConflictError
from registry.audit.log_files import LocalLogFiles
from registry.permissions import TransitionRefusedError
from registry.registry_log import RegistryLog

CONFIG = RolloutConfig.model_validate({"steps": ["shadow", 0.1, 0.5, 1.0], "accuracy": None})


class FakeEndpoint:
    """Counters that a test sets, and golden samples that are always answered."""

    def __init__(self) -> None:
        self.counts = {"v1": ServiceCounters(), "v2": ServiceCounters()}
        self.rollout = ""
        self.started: list[str] = []
        self.state: Literal["serving", "missing"] = "serving"

    def counters(self) -> dict[str, ServiceCounters]:
        return self.counts

    def health(self, _name: str) -> ServiceHealth:
        return ServiceHealth(self.state, "")

    def start(self, name: str) -> None:
        self.started.append(name)

    def load_bundle(self, _name: str) -> None:
        return None

    def verify(self, _name: str, _bundle: Any) -> VerificationResult:
        return VerificationResult("http://127.0.0.1:1", "1", 20, 0.0)

    def set_rollout(self, _name: str, text: str) -> None:
        self.rollout = text

    def count(self, n: int, errors: int = 0) -> None:
        """Count requests of both arms, and errors of version 2."""
        own = ServiceCounters(n, server_errors=errors, errors=errors)
        self.counts = {
            "v1": self.counts["v1"] + ServiceCounters(n),
            "v2": self.counts["v2"] + own,
        }


class FakeDeployer:
    """Version 1 in production and version 2 as a shadow."""

    def __init__(self) -> None:
        self.endpoint = FakeEndpoint()
        self.running = [
            SimpleNamespace(
                uuid=f"id{n}",
                service_name=f"v{n}",
                is_running=True,
                config=SimpleNamespace(model_version=str(n), predictor=f"p{n}"),
            )
            for n in (1, 2)
        ]
        self.now = Traffic({"id1": Share(1.0), "id2": Share(1.0, "shadow")})

    def services(self, _model_name: str) -> list[Any]:
        return list(self.running)

    def service_endpoint(self, _service: Any) -> FakeEndpoint:
        return self.endpoint

    def traffic(self, _model_name: str) -> Traffic:
        return self.now

    def set_traffic(self, _model_name: str, traffic: Traffic) -> None:
        self.now = traffic

    def remove(self, service: Any) -> None:
        self.running.remove(service)


class Registry:
    """A registry with an audit log alone."""

    model_name = "pets"

    def __init__(self, folder: Path) -> None:
        mirror: Any = SimpleNamespace(log_head=lambda: None, store_log_head=lambda *_: None)
        self.log = RegistryLog("pets", AuditLog(LocalLogFiles(folder)), mirror)
        self.log.__dict__["actor"] = Actor("system", "ada")
        self.rejected: list[int] = []

    def stages(self) -> dict[int, str]:
        return {1: "production", 2: "staging"}

    def record_outside_changes(self) -> None:
        pass

    def reject(self, number: int, _who: Any, _why: str) -> None:
        self.rejected.append(number)


class Story:
    """A rollout of version 2 that has just begun."""

    def __init__(self, folder: Path, config: RolloutConfig) -> None:
        self.registry: Any = Registry(folder / "audit")
        self.deployer = FakeDeployer()
        self.alerts: list[Alert] = []
        self.config = config

    @property
    def endpoint(self) -> FakeEndpoint:
        return self.deployer.endpoint

    def begin(self) -> None:
        replaced = Traffic({"id1": Share(1.0)})
        arguments = "pets", "2", "p2", "id2", "http://127.0.0.1:1", 1.0, replaced, True, "staging"
        rollouts.begin_rollout(
            self.registry, Deployment(*arguments, arm="shadow"), self.config, None, "deployed"
        )

    def look(self) -> RolloutDecision | None:
        return acting.step_rollout(self.registry)

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.registry.log.entries()]

    def last(self) -> Any:
        return self.registry.log.entries()[-1]

    def run(self, *words: str, code: int = 0) -> str:
        """Run ``run.py rollout`` and return what it printed."""
        result = CliRunner().invoke(command, words, standalone_mode=False, catch_exceptions=False)
        assert result.return_value == code
        return result.output


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Story:
    story = Story(tmp_path, CONFIG)
    stores = SimpleNamespace(local_stores_path=str(tmp_path))
    (tmp_path / "deployments").mkdir()
    monkeypatch.setattr(rollouts, "GlobalConfiguration", lambda: stores)
    monkeypatch.setattr(deployments, "GlobalConfiguration", lambda: stores)
    monkeypatch.setattr(deployments, "active_deployer", lambda: story.deployer)
    monkeypatch.setattr("cli.commands.rollout.open_registry", lambda *_: story.registry)
    monkeypatch.setattr(acting, "start_watcher", lambda _name: None)
    monkeypatch.setattr(rollouts, "send_alerts", lambda alerts, _name: story.alerts.extend(alerts))
    story.begin()
    return story


def test_each_step_needs_its_own_requests_and_is_logged_with_its_evidence(story: Story) -> None:
    assert story.look().action == "wait"
    for share in (0.1, 0.5):
        story.endpoint.count(2000)
        assert story.look().action == "advance"
        assert story.deployer.now.weights["id2"] == pytest.approx(share)
        assert story.look().action == "wait", "no requests in this step yet"
    assert story.kinds() == ["rollout_started", "rollout_step", "rollout_step"]
    detail = story.last().detail
    assert (detail["version"], detail["share"], detail["verdict"]) == (2, 0.5, "no_worse")
    assert [e["measure"] for e in detail["evidence"]] == ["errors", "latency"]


def test_the_last_step_promotes_and_says_on_which_evidence(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted: list[int] = []

    def promote(registry: Any, number: int, who: Any, why: str, *, is_rollback: bool) -> None:
        promoted.append(number)
        registry.log.record("deployed", who, why, {"version": number})

    monkeypatch.setattr("cli.pipelines.deployment.change_production", promote)
    for _ in range(3):
        story.endpoint.count(2000)
        story.look()
    assert promoted == [2]
    assert story.kinds()[-2:] == ["deployed", "rollout_finished"]
    assert story.look() is None
    assert story.alerts[-1].status == "resolved"


def test_a_promotion_that_is_refused_holds_and_is_not_tried_again(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise TransitionRefusedError("version 2 needs a person's approval.")

    monkeypatch.setattr("cli.pipelines.deployment.change_production", refuse)
    for _ in range(2):
        story.endpoint.count(2000)
        story.look()
    story.endpoint.count(2000)
    with pytest.raises(TransitionRefusedError):
        story.look()
    assert story.look().reason == "held: version 2 needs a person's approval."
    assert story.alerts[-1].status == "firing"


def test_a_breach_gives_the_requests_back_verifies_and_tells_why(story: Story) -> None:
    story.endpoint.count(2000)
    story.look()
    story.endpoint.count(200, errors=20)
    assert story.look().action == "roll_back"
    assert story.deployer.now.shares == {"id1": Share(1.0)}
    assert [s.service_name for s in story.deployer.running] == ["v1"]
    entry = story.last()
    assert entry.kind == "rollout_aborted"
    assert "errors: 20 of 2200 requests failed, in production 0 of 2200" in entry.why
    assert entry.detail["verification"] == ["Version 1 answered 20 golden samples."]
    assert story.registry.rejected == [2]
    assert "was rolled back at 0.1 of the requests: automatic: errors" in story.endpoint.rollout
    assert (story.alerts[-1].severity, story.alerts[-1].status) == ("critical", "firing")
    assert story.alerts[-1].summary.endswith("limit 125). Version 1 answered 20 golden samples.")
    assert story.look() is None


def test_a_rollback_that_was_killed_is_finished_by_the_next_look(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.endpoint.count(2000, errors=200)
    record = story.registry.log.record

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(story.registry.log, "record", kill)
    with pytest.raises(KeyboardInterrupt):
        story.look()
    assert story.deployer.now.shares == {"id1": Share(1.0)}, "clients are served by version 1"
    monkeypatch.setattr(story.registry.log, "record", record)
    assert story.look().action == "roll_back"
    assert story.kinds() == ["rollout_started", "rollout_aborted"]


def test_a_deployment_that_was_killed_before_its_rollout_was_logged_is_taken_up(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 2 is a shadow already; the same command is given again."""
    story.registry = Registry(tmp_path / "killed")
    version = SimpleNamespace(number=2, stage="staging", model=SimpleNamespace(name="pets"))

    def deploy_version(config: DeploymentPipelineConfig, *_: Any, **options: Any) -> None:
        assert (config.endpoint.arm, options["rollout"]) == ("shadow", CONFIG)
        story.begin()

    monkeypatch.setattr(deployments, "next_version", lambda *_: version)
    monkeypatch.setattr(deployment_pipeline, "deploy_version", deploy_version)
    config = DeploymentPipelineConfig(rollout=CONFIG)
    options = RunOptions("deployment")
    deployment_pipeline.deploy_next(config, ZenMLConfig(), story.registry, options)
    assert story.kinds() == ["rollout_started"]
    assert story.look() is not None


def test_a_step_whose_traffic_was_not_changed_is_finished_by_the_next_look(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.endpoint.count(2000)

    def fail(*_: Any) -> None:
        raise StackError("the proxy does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(story.deployer, "set_traffic", fail)
        with pytest.raises(StackError):
            story.look()
    assert story.look().action == "wait"
    assert story.deployer.now.weights["id2"] == pytest.approx(0.1)
    assert story.kinds() == ["rollout_started", "rollout_step"]


def test_a_step_decided_on_an_older_log_is_not_taken(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = rollouts.require_rollout(story.registry)
    decision = RolloutDecision("advance", "better", "fine")
    entries = story.registry.log.entries()
    monkeypatch.setattr(story.registry.log, "check", lambda: entries)
    story.registry.log.record("stopped", None, "zenml", {"version": 1})
    with pytest.raises(LogConflictError):
        rollouts.take_step(story.registry, state, decision, None, "fine")
    with pytest.raises(TransitionRefusedError, match="has changed meanwhile"):
        rollouts.take_step(story.registry, replace(state, step_index=1), decision, None, "fine")
    assert "shadow" in {share.arm for share in story.deployer.now.shares.values()}


def test_time_without_evidence_holds_and_low_traffic_never_passes(
    tmp_path: Path, story: Story
) -> None:
    state = rollouts.require_rollout(story.registry)
    story.endpoint.count(30)
    hasty = state.config.model_copy(update={"max_hours": 1e-9})
    decision = rollouts.look(story.registry, replace(state, config=hasty))
    assert (decision.action, decision.verdict) == ("hold", "not_enough_evidence")
    acting.act(story.registry, state, decision, None, decision.reason)
    assert story.last().kind == "rollout_held"
    assert "30 of 500 requests" in story.last().why
    story.endpoint.count(9000)
    assert story.look().action == "wait", "nobody but a person ends a hold"
    story.endpoint.count(100, errors=50)
    assert story.look().action == "roll_back", "harm does"


def test_a_version_that_does_not_run_is_held_once(story: Story) -> None:
    story.endpoint.state = "missing"
    assert story.look().action == "hold"
    assert story.look().action == "wait"
    assert story.kinds() == ["rollout_started", "rollout_held"]


def test_what_else_deploys_or_withdraws_ends_it(story: Story) -> None:
    with pytest.raises(TransitionRefusedError, match="version 2 is being rolled out"):
        rollouts.require_no_rollout(story.registry)
    story.registry.log.record("withdrawn", None, "by hand", {"version": 1})
    assert rollouts.load_rollout(story.registry) is not None
    story.registry.log.record("withdrawn", None, "by hand", {"version": 2})
    assert rollouts.load_rollout(story.registry) is None
    rollouts.require_no_rollout(story.registry)
    with pytest.raises(TransitionRefusedError, match="pets has no rollout"):
        rollouts.require_rollout(story.registry)


def test_a_person_holds_goes_on_and_sees_why(story: Story) -> None:
    assert "Held: pets version 2, a holiday" in story.run("hold", "--reason", "a holiday")
    story.endpoint.count(2000)
    assert story.look().reason == "held: a holiday"
    shown = story.run("status")
    assert "shadow (step 1 of 4)" in shown
    assert "wait      held: a holiday" in shown
    assert "watcher   none: python run.py rollout watch --model pets" in shown
    story.run("advance", "--reason", "back again")
    assert (story.last().kind, story.last().why) == ("rollout_step", "back again")
    status = json.loads(story.run("status", "--json"))
    assert (status["version"], status["step"], status["held"]) == (2, 0.1, None)


def test_a_person_may_advance_without_evidence_but_not_against_it(story: Story) -> None:
    with pytest.raises(TransitionRefusedError, match="stays at its step: not enough evidence"):
        story.run("advance")
    story.run("advance", "--force", "--by", "ann", "--reason", "a demo")
    assert story.last().why == "a demo (without enough evidence)"
    assert (story.last().who, story.last().detail["verdict"]) == ("ann", "not_enough_evidence")
    story.endpoint.count(500, errors=100)
    with pytest.raises(TransitionRefusedError, match="errors: 100 of 500 requests failed"):
        story.run("advance", "--force")


def test_a_person_ends_it_and_the_version_stays_in_staging(story: Story) -> None:
    assert "All requests go to version 1" in story.run("abort", "--reason", "complaints")
    assert story.deployer.now.shares == {"id1": Share(1.0)}
    assert (story.last().kind, story.last().why) == ("rollout_aborted", "complaints")
    assert story.registry.rejected == []
    assert story.endpoint.started == []
    alert = story.alerts[-1]
    assert (alert.severity, alert.status) == ("warning", "resolved")
    assert alert.summary.endswith(
        "version 2 was aborted: complaints. Version 1 answered 20 golden samples."
    )
    assert story.run("status") == "pets has no rollout.\n"


def test_an_abort_after_which_production_answers_wrongly_is_critical(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise VerificationError("golden sample 3 differs.")

    monkeypatch.setattr(story.endpoint, "verify", fail)
    story.run("abort", "--reason", "complaints")
    alert = story.alerts[-1]
    assert (alert.severity, alert.status) == ("critical", "firing")
    assert alert.summary.endswith("does not answer as it should: golden sample 3 differs.")


def test_after_a_restart_of_the_machine_an_abort_starts_what_is_in_production(
    story: Story,
) -> None:
    for service in story.deployer.running:
        service.is_running = False
    story.endpoint.state = "missing"
    assert story.look().action == "hold"
    story.run("abort", "--reason", "a restart")
    assert story.endpoint.started == ["v1"]
    assert story.deployer.now.shares == {"id1": Share(1.0)}


def test_the_watcher_ends_with_the_rollout_and_outlives_what_passes(
    story: Story, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = [StackError("MLflow does not answer"), OSError("no space left"), None, None]
    look = rollouts.look

    def fail_sometimes(*arguments: Any) -> RolloutDecision:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        if not failures:
            story.endpoint.count(500, errors=100)
        return look(*arguments)

    monkeypatch.setattr(rollouts, "look", fail_sometimes)
    acting.watch(story.registry, interval_s=0.0)
    output = capsys.readouterr().out
    assert "error: MLflow does not answer" in output
    assert "Rolled back: pets version 2. All requests go to version 1." in output


def test_an_endpoint_that_counts_nothing_by_version_refuses() -> None:
    endpoint: Any = SimpleNamespace()
    with pytest.raises(StackError, match="remove rollout"):
        Endpoint.counters(endpoint)
