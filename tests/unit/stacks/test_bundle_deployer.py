"""The model deployers over an endpoint: what they refuse, and what a started service is given."""

from types import SimpleNamespace
from typing import Any

import pytest

from cv_factory.config.deployment import EndpointConfig
from cv_factory.deployment.endpoint import ServiceHealth
from cv_factory.deployment.traffic import Share, Traffic
from cv_factory.errors import ConfigError
from stacks.flavors.bento import BentoDeployer
from stacks.flavors.bundle_deployer import BundleDeployer
from stacks.flavors.sagemaker_bento import SagemakerBentoDeployer

MISSING = {"certificate": "/nowhere/server.pem", "key": "/nowhere/server.key"}


def check(flavor: type[BundleDeployer], settings: dict[str, Any]) -> None:
    """Check settings by a deployer whose endpoint takes any port."""
    deployer = flavor.__new__(flavor)
    deployer.__dict__["endpoint"] = lambda *_: SimpleNamespace(check_address=lambda: None)
    deployer.__dict__["default_port"] = lambda _: 3000
    deployer.check_settings("digits", EndpointConfig.model_validate(settings))


@pytest.mark.parametrize(
    ("flavor", "settings", "message"),
    [
        (SagemakerBentoDeployer, {"shadow_share": 0.1}, r"endpoint\.shadow_share: this model"),
        (SagemakerBentoDeployer, {"sticky": {"by": "api_key"}}, r"endpoint\.sticky: SageMaker"),
        (SagemakerBentoDeployer, {"tls": MISSING}, r"endpoint\.tls: .* Leave it out"),
        (BentoDeployer, {"tls": MISSING}, r"endpoint\.tls\.certificate: /nowhere/server\.pem"),
    ],
)
def test_it_is_named(flavor: type[BundleDeployer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(flavor, settings)


@pytest.mark.parametrize("flavor", [SagemakerBentoDeployer, BentoDeployer])
def test_the_absence_of_stickiness_and_tls_is_no_demand(flavor: type[BundleDeployer]) -> None:
    check(flavor, {"canary_share": 0.1, "sticky": {"by": "none"}, "tls": {}})


class _FakeEndpoint:
    """An endpoint whose services run, but for one, and which notes its traffic."""

    def __init__(self, traffic: Traffic, missing: str) -> None:
        self.now, self._missing = traffic, missing

    def start(self, _name: str, _timeout_s: float | None) -> None:
        pass

    def health(self, name: str) -> ServiceHealth:
        return ServiceHealth("missing" if name == self._missing else "serving", "")

    def traffic(self) -> Traffic:
        return self.now

    def set_traffic(self, traffic: Traffic) -> None:
        self.now = traffic


@pytest.mark.parametrize(
    ("started", "missing", "weights", "shadows"),
    [
        ("one", "", {"one": 0.75, "two": 0.25}, {"three": 0.5}),
        ("three", "", {"one": 0.75, "two": 0.25}, {"three": 0.5}),
        ("four", "two", {"one": 1.0}, {"three": 0.5}),
        ("two", "one", {"two": 1.0}, {"three": 0.5}),
    ],
)
def test_a_started_service_is_given_what_it_had(
    started: str, missing: str, weights: dict[str, float], shadows: dict[str, float]
) -> None:
    shares = {"one": Share(0.75), "two": Share(0.25, "canary"), "three": Share(0.5, "shadow")}
    endpoint = start(started, Traffic(shares), missing)
    assert (endpoint.now.weights, endpoint.now.shadows) == (weights, shadows)


def test_a_service_that_is_started_alone_is_given_all_requests_unless_it_is_a_shadow() -> None:
    shadow = Traffic({"one": Share(1.0), "two": Share(0.5, "shadow")})
    assert start("two", shadow, missing="one").now.weights == {}
    assert start("three", shadow, missing="one").now.weights == {"three": 1.0}
    assert start("one", Traffic(), missing="").now.weights == {"one": 1.0}


def start(name: str, traffic: Traffic, missing: str) -> _FakeEndpoint:
    """Start a service through the interface of ZenML."""
    endpoint = _FakeEndpoint(traffic, missing)
    deployer = BentoDeployer.__new__(BentoDeployer)
    deployer.__dict__["service_endpoint"] = lambda _: endpoint
    service: Any = SimpleNamespace(service_name=name, update_status=lambda: None)
    deployer.perform_start_model(service)
    return endpoint
