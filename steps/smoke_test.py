"""Step ``smoke_test``: verify the deployed service at the address of its clients."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.deployment.deployment import Deployment
from cv_factory.serving.bundle import Bundle


@step(enable_cache=False)
def smoke_test(
    deployment: Deployment, bundle: Bundle
) -> Annotated[Deployment, "proven_deployment"]:
    """Send the golden samples; on a wrong answer the previous service gets the requests back."""
    from registry.deployments import restore_on_failure, verify

    with restore_on_failure(deployment):
        return deployment.with_verification(verify(deployment, bundle))
