"""Stores a Deployment."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.deployment.deployment import Deployment
from materializers.artifact import ArtifactMaterializer


class DeploymentMaterializer(ArtifactMaterializer):
    """``deployment.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Deployment,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.SERVICE

    def facts(self, data: Deployment) -> dict[str, MetadataType]:
        """Return the deployed version, its address, and its verification."""
        result = data.verification
        return {
            "model": f"{data.model_name} version {data.version}",
            "stage": data.stage,
            "url": data.url,
            "arm": data.arm,
            "share": data.share,
            "service_id": data.service_id,
            "replaced": list(data.replaced.shares),
            "golden_samples": result.n_samples if result else 0,
            "largest_difference": result.largest_difference if result else "not verified yet",
        }
