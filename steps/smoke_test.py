"""The deployed service is proven where its clients will ask."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.deployment.deployment import Deployment
from cv_factory.serving.bundle import Bundle


@step(enable_cache=False)
def smoke_test(
    deployment: Deployment, bundle: Bundle
) -> Annotated[Deployment, "proven_deployment"]:
    """Send the golden samples; a wrong answer gives the requests back to what served before."""
    from registry.deployments import prove, restored_on_failure

    with restored_on_failure(deployment):
        return deployment.proven(prove(deployment, bundle))
