"""Stores a Deployment."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.deployment.deployment import Deployment
from materializers.artifact import NounMaterializer


class DeploymentMaterializer(NounMaterializer):
    """``deployment.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Deployment,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.SERVICE
    HEADER: ClassVar[str] = "deployment.json"

    def facts(self, data: Deployment) -> dict[str, MetadataType]:
        """Say what answers where, and how it was proven."""
        proof = data.proof
        return {
            "model": f"{data.model_name} version {data.version}",
            "stage": data.stage,
            "url": data.url,
            "share": data.share,
            "service_id": data.service_id,
            "replaced": list(data.replaced),
            "golden_samples": proof.n_samples if proof else 0,
            "largest_difference": proof.largest_difference if proof else "not proven yet",
        }
