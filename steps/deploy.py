"""Step ``deploy``: serve a bundle and give it its weight of the requests."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.deployment import EndpointConfig
from cv_factory.deployment.deployment import Deployment
from cv_factory.serving.bundle import Bundle


@step(enable_cache=False)
def deploy(
    bundle: Bundle, endpoint: EndpointConfig, who: str, why: str
) -> Annotated[Deployment, "deployment"]:
    """Deploy through the stack's model deployer; the previous service keeps running."""
    from registry.deployments import deploy as deploy_bundle

    return deploy_bundle(bundle, endpoint, who, why)
