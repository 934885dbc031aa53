"""What the registry takes for the deployed version, with a deployer that starts nothing."""

from types import SimpleNamespace
from typing import Any

import pytest

from registry import deployments
from registry.permissions import TransitionRefusedError
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


def test_each_model_keeps_its_port_and_a_new_one_gets_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services = [
        SimpleNamespace(config=SimpleNamespace(model_name=name, port=port))
        for name, port in (("digits", 3005), ("digits", 3000), ("pets", 3001))
    ]
    deployer = BentoDeployer.__new__(BentoDeployer)
    monkeypatch.setattr(BentoDeployer, "config", SimpleNamespace(port=3000))
    monkeypatch.setattr(BentoDeployer, "_list_services", lambda _: services)
    ports = [deployer.default_port(name) for name in ("digits", "pets", "cats")]
    assert ports == [3005, 3001, 3000], "the newest service says where a model is"


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
