"""What the registry takes for the deployed version, with a deployer that starts nothing."""

from types import SimpleNamespace
from typing import Any

import pytest

from cli.pipelines import deployment
from cv_factory.config.serving import ServingConfig
from cv_factory.deployment.deployment import Deployment
from cv_factory.errors import ArtifactError, StackError
from cv_factory.processes.ports import LOOPBACK, listen
from registry import deployments
from registry.permissions import TransitionRefusedError
from registry.standing import GateStanding
from stacks.flavors.bento import BentoDeployer

_VERSION: Any = SimpleNamespace(
    number=3, model=SimpleNamespace(name="digits"), run_metadata={"predictor": "f"}
)


class _FakeDeployer:
    """One recorded service, behind an endpoint with these weights."""

    def __init__(self, weights: dict[str, float]) -> None:
        self._weights = weights

    def services(self, _model_name: str) -> list[Any]:
        config = SimpleNamespace(model_version="3", predictor="f", port=3000)
        return [
            SimpleNamespace(
                service_name="v3",
                config=config,
                is_running=True,
                client_url="http://127.0.0.1:3000",
            )
        ]

    def service_endpoint(self, _service: Any) -> Any:
        return SimpleNamespace(weights=lambda: self._weights)


def test_production_is_not_changed_from_a_stack_that_does_not_serve_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = (deployments.ServiceElsewhere("1", "f", "sagemaker_bento", "aws"),)
    monkeypatch.setattr(deployments, "services_elsewhere", lambda _: elsewhere)
    with pytest.raises(TransitionRefusedError, match="Give the command with: --stack aws"):
        deployments.require_reachable_services("digits")


class _Canary:
    """A deployer with version 2 beside version 1, whose weights and removals are noted."""

    def __init__(self) -> None:
        one, two = (
            SimpleNamespace(uuid=n, config=SimpleNamespace(model_version=str(n), predictor=f"f{n}"))
            for n in (1, 2)
        )
        self.present: dict[int, Any] = {1: one, 2: two}
        self.shares: dict[int, float] = {1: 0.75, 2: 0.25}

    def services(self, _model_name: str) -> list[Any]:
        return list(self.present.values())

    def weights(self, _model_name: str) -> dict[int, float]:
        return dict(self.shares)

    def set_weights(self, _model_name: str, weights: dict[int, float]) -> None:
        self.shares = dict(weights)

    def remove(self, service: Any) -> None:
        del self.present[service.uuid]


def test_a_canary_that_was_deleted_from_zenml_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    deployer, recorded = _Canary(), list[Any]()
    monkeypatch.setattr(deployments, "active_deployer", lambda: deployer)
    log = SimpleNamespace(record=lambda *a: recorded.append(a))
    registry: Any = SimpleNamespace(model_name="pets", stages=lambda: {1: "production"}, log=log)
    assert deployments.withdraw(registry, 2, "ada", "more errors") == ("1",)
    assert (list(deployer.present), deployer.shares) == ([1], {1: 0.75})
    assert recorded == [("withdrawn", "ada", "more errors", {"version": 2, "predictor": "f2"})]


def test_a_withdrawal_that_cannot_be_recorded_can_be_given_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deployer = _Canary()
    monkeypatch.setattr(deployments, "active_deployer", lambda: deployer)

    def refuse(*_: Any) -> None:
        raise StackError("MLflow does not answer")

    registry: Any = SimpleNamespace(
        model_name="pets",
        stages=lambda: {1: "production", 2: "staging"},
        log=SimpleNamespace(record=refuse),
    )
    for _ in range(2):
        with pytest.raises(StackError):
            deployments.withdraw(registry, 2, "ada", "more errors")
    assert deployer.shares == {1: 0.75}, "the canary gets no requests"


@pytest.mark.parametrize("failing", ["promote", "record"])
def test_what_was_promoted_goes_on_serving_whatever_fails_afterwards(
    monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise StackError("MLflow does not answer")

    methods = {"promote": lambda *_, **__: None, "record": lambda *_: None, failing: fail}
    log = SimpleNamespace(record=methods["record"])
    registry = SimpleNamespace(promote=methods["promote"], log=log)
    restored = list[Deployment]()
    monkeypatch.setattr(deployments, "ModelRegistry", lambda _: registry)
    monkeypatch.setattr(deployments, "_restore", restored.append)
    deployed = Deployment("pets", "2", "f", "id", "http://x", 1.0, {}, True, "staging")
    with pytest.raises(StackError):
        deployments.promote(deployed, "ada", "better", is_rollback=False)
    assert restored == ([deployed] if failing == "promote" else [])


def test_a_name_that_may_not_promote_is_refused_before_anything_is_deployed() -> None:
    checked = list[Any]()
    registry: Any = SimpleNamespace(
        get_version=lambda n: n, require_deployable=lambda *a: checked.append(a)
    )
    assert deployments.next_version(registry, 2, "eve") == 2
    assert checked == [(2, "eve")]


def test_a_model_that_two_stacks_serve_is_changed_on_the_active_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = (deployments.ServiceElsewhere("1", "f", "sagemaker_bento", "aws"),)
    monkeypatch.setattr(deployments, "services_elsewhere", lambda _: elsewhere)
    monkeypatch.setattr(
        deployments, "deployed_bundle", lambda _: SimpleNamespace(serving=ServingConfig())
    )
    monkeypatch.setattr(deployment, "deploy_version", lambda *args, **_: args[2].number)
    registry: Any = SimpleNamespace(
        model_name="pets", get_version=lambda n: SimpleNamespace(number=n, stage="staging")
    )
    assert deployment.change_production(registry, 2, None, "why", is_rollback=False) == 2


def test_each_model_keeps_its_port_and_a_new_one_gets_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with listen(LOOPBACK, 0) as of_another_process:
        first = of_another_process.getsockname()[1]
        services = [
            SimpleNamespace(config=SimpleNamespace(model_name=name, port=port))
            for name, port in (("digits", 3005), ("digits", first), ("pets", first + 1))
        ]
        deployer = BentoDeployer.__new__(BentoDeployer)
        config = SimpleNamespace(host=LOOPBACK, port=first)
        monkeypatch.setattr(BentoDeployer, "config", config)
        monkeypatch.setattr(BentoDeployer, "_list_services", lambda _: services)
        ports = [deployer.default_port(name) for name in ("digits", "pets", "cats")]
    assert ports[:2] == [3005, first + 1], "the newest service says where a model is"
    assert ports[2] > first + 1


@pytest.mark.parametrize(
    ("weights", "url"),
    [
        ({"v3": 1.0}, "http://127.0.0.1:3000"),
        ({"v3": 0.9, "without a record": 0.1}, None),
        ({"without a record": 1.0}, None),
        ({}, None),
    ],
)
def test_version_is_served_only_if_its_service_has_all_requests(
    monkeypatch: pytest.MonkeyPatch, weights: dict[str, float], url: str | None
) -> None:
    monkeypatch.setattr(deployments, "active_deployer", lambda: _FakeDeployer(weights))
    assert deployments.served_url(_VERSION, None) == url


def test_a_version_whose_card_is_gone_is_deployed_without_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ArtifactError("The files are gone.")

    stored = SimpleNamespace(items=["registration"])
    client = SimpleNamespace(list_artifact_versions=lambda **_: stored)
    monkeypatch.setattr(deployments, "Client", lambda: client)
    monkeypatch.setattr(deployments, "load_artifact", fail)
    registry: Any = SimpleNamespace(model_name="pets")
    assert deployments._card(registry, 2, GateStanding(2, "f")) is None
    assert "pets version 2 has no model card: The files are gone." in caplog.text
