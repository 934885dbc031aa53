"""Step ``promote``: put the verified version into production, and stop the previous service."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.deployment.deployment import Deployment


@step(enable_cache=False)
def promote(
    deployment: Deployment, who: str, why: str, is_rollback: bool
) -> Annotated[Deployment, "production"]:
    """Promote, or roll back; on a refusal the previous service gets the requests back."""
    from registry.deployments import promote as promote_version

    return promote_version(deployment, who, why, is_rollback=is_rollback)
