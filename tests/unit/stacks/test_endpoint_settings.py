"""What an endpoint of a flavor lacks is refused before anything is built."""

from types import SimpleNamespace
from typing import Any

import pytest

from cv_factory.config.deployment import EndpointConfig
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
