"""What the registry takes for the deployed version, with a deployer that starts nothing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.pipelines import deployment
from cv_factory.config.deployment import EndpointConfig
from cv_factory.config.serving import ServingConfig
from cv_factory.deployment.deployment import Deployment
from cv_factory.deployment.traffic import Arm, Share, Sticky, TlsFiles, Traffic
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
    """One recorded service, behind an endpoint with this traffic."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

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
        return SimpleNamespace(traffic=lambda: self._traffic)


def test_production_is_not_changed_from_a_stack_that_does_not_serve_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = (deployments.ServiceElsewhere("1", "f", "sagemaker_bento", "aws"),)
    monkeypatch.setattr(deployments, "services_elsewhere", lambda _: elsewhere)
    with pytest.raises(TransitionRefusedError, match="Give the command with: --stack aws"):
        deployments.require_reachable_services("digits")


class _Rollout:
    """A deployer with version 1 and, beside it, version 2 with this share."""

    def __init__(self, share: Share) -> None:
        services = (
            SimpleNamespace(uuid=n, config=SimpleNamespace(model_version=n, predictor=f"f{n}"))
            for n in ("1", "2")
        )
        self.present: dict[str, Any] = {service.uuid: service for service in services}
        self.now = Traffic({"1": Share(0.75), "2": share}, Sticky("api_key"))

    def services(self, _model_name: str) -> list[Any]:
        return list(self.present.values())

    def traffic(self, _model_name: str) -> Traffic:
        return self.now

    def set_traffic(self, _model_name: str, traffic: Traffic) -> None:
        self.now = traffic

    def remove(self, service: Any) -> None:
        del self.present[service.uuid]


ROLLOUTS = pytest.mark.parametrize("share", [Share(0.25, "canary"), Share(0.5, "shadow")])


@ROLLOUTS
def test_a_canary_or_shadow_that_was_deleted_from_zenml_is_withdrawn(
    monkeypatch: pytest.MonkeyPatch, share: Share
) -> None:
    deployer, recorded = _Rollout(share), list[Any]()
    monkeypatch.setattr(deployments, "active_deployer", lambda: deployer)
    log = SimpleNamespace(record=lambda *a: recorded.append(a))
    registry: Any = SimpleNamespace(model_name="pets", stages=lambda: {1: "production"}, log=log)
    assert deployments.withdraw(registry, 2, "ada", "more errors") == ("1",)
    assert list(deployer.present) == ["1"]
    assert deployer.now == Traffic({"1": Share(1.0)}, Sticky("api_key"))
    assert recorded == [("withdrawn", "ada", "more errors", {"version": 2, "predictor": "f2"})]


@ROLLOUTS
def test_a_withdrawal_that_cannot_be_recorded_can_be_given_again(
    monkeypatch: pytest.MonkeyPatch, share: Share
) -> None:
    deployer = _Rollout(share)
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
    assert deployer.now.shares == {"1": Share(1.0)}, "version 2 is given nothing"


BEFORE = Traffic(
    {"1": Share(0.9), "2": Share(0.1, "canary"), "3": Share(0.5, "shadow")}, Sticky("api_key")
)


@pytest.mark.parametrize(
    ("own", "arm", "share", "weights", "shadows"),
    [
        ("4", "stable", 1.0, {"4": 1.0}, {}),
        ("2", "canary", 0.5, {"2": 0.5, "1": 0.5}, {"3": 0.5}),
        ("2", "shadow", 0.2, {"1": 1.0}, {"2": 0.2, "3": 0.5}),
        ("3", "canary", 0.5, {"3": 0.5, "1": 0.45, "2": 0.05}, {}),
    ],
)
def test_a_deployment_gets_its_share_of_what_the_others_had(
    own: str, arm: Arm, share: float, weights: dict[str, float], shadows: dict[str, float]
) -> None:
    deployment = Deployment(
        "pets", "2", "f", own, "http://x", share, BEFORE, True, "staging", arm=arm
    )
    target = deployments._target_traffic(deployment)
    assert next(iter(target.shares)) == own, "it says at which port the proxy listens"
    assert target.shares[own].arm == arm
    assert target.weights == pytest.approx(weights)
    assert target.shadows == shadows
    assert target.sticky == BEFORE.sticky


@pytest.mark.parametrize("arm", ["canary", "shadow"])
@pytest.mark.parametrize("own", ["1", "3"])
def test_a_canary_or_shadow_needs_a_version_beside_it(own: str, arm: Arm) -> None:
    alone = BEFORE.only({"1"}) if own == "1" else BEFORE.only({"3"})
    deployment = Deployment(
        "pets", "1", "f", own, "http://x", 0.5, alone, False, "staging", arm=arm
    )
    with pytest.raises(TransitionRefusedError, match=f"{arm}_share needs a deployed version"):
        deployments._target_traffic(deployment)


@pytest.mark.parametrize("is_new", [False, True])
def test_a_failure_restores_all_of_the_traffic_before(
    monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    deployer = _Rollout(Share(0.25, "canary"))
    for service in deployer.present.values():
        service.is_running = True
    before, deployer.now = (
        deployer.now,
        Traffic({"2": Share(1.0)}, tls=TlsFiles(Path("c"), Path("k"))),
    )
    monkeypatch.setattr(deployments, "active_deployer", lambda: deployer)
    deployment = Deployment("pets", "2", "f", "2", "http://x", 1.0, before, is_new, "staging")
    with pytest.raises(KeyError), deployments.restore_on_failure(deployment):
        deployer.present.pop("what fails")
    restored = deployer.traffic("pets")
    assert restored == before
    assert list(deployer.present) == (["1"] if is_new else ["1", "2"])


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
    deployed = Deployment("pets", "2", "f", "id", "http://x", 1.0, Traffic(), True, "staging")
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
    ("shares", "url"),
    [
        ({"v3": Share(1.0)}, "http://127.0.0.1:3000"),
        ({"v3": Share(0.9), "without a record": Share(0.1)}, None),
        ({"v3": Share(1.0), "without a record": Share(0.1, "shadow")}, None),
        ({"without a record": Share(1.0)}, None),
        ({}, None),
    ],
)
def test_version_is_served_only_if_its_service_has_all_requests(
    monkeypatch: pytest.MonkeyPatch, shares: dict[str, Share], url: str | None
) -> None:
    monkeypatch.setattr(deployments, "active_deployer", lambda: _FakeDeployer(Traffic(shares)))
    assert deployments.served_url(_VERSION, EndpointConfig()) == url


@pytest.mark.parametrize(
    ("settings", "is_served"),
    [
        ({}, True),
        ({"sticky": {"by": "api_key"}, "tls": {"certificate": "/c", "key": "/k"}}, True),
        ({"sticky": {"by": "none"}}, False),
        ({"sticky": {"by": "header", "name": "X-User"}}, False),
        ({"tls": {}}, False),
        ({"tls": {"certificate": "/new", "key": "/k"}}, False),
        ({"port": 3001}, False),
    ],
)
def test_version_is_served_only_as_its_settings_say(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], is_served: bool
) -> None:
    tls = TlsFiles(Path("/c"), Path("/k"))
    deployer = _FakeDeployer(Traffic({"v3": Share(1.0)}, Sticky("api_key"), tls))
    monkeypatch.setattr(deployments, "active_deployer", lambda: deployer)
    url = deployments.served_url(_VERSION, EndpointConfig.model_validate(settings))
    assert (url is not None) is is_served


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
