"""A registered version becomes the service that answers: bundled, deployed, verified, promoted."""

from typing import Any
from uuid import UUID

from zenml import pipeline
from zenml.client import Client

from cv_factory.config.deployment import DeploymentPipelineConfig
from steps.build_bundle import build_bundle
from steps.deploy import deploy
from steps.promote import promote
from steps.smoke_test import smoke_test


@pipeline(name="deployment", enable_cache=False)
def deployment(
    config: DeploymentPipelineConfig,
    predictor_id: str,
    facts: dict[str, Any],
    who: str,
    why: str,
    is_rollback: bool = False,
) -> None:
    """Deploy one version; a canary or shadow is not promoted."""
    predictor = Client().get_artifact_version(UUID(predictor_id))
    bundle = build_bundle(predictor, config.serving, facts)
    deployed = deploy(bundle, config.endpoint, who=who, why=why)
    verified = smoke_test(deployed, bundle)
    if config.endpoint.arm == "stable":
        promote(verified, who=who, why=why, is_rollback=is_rollback)
