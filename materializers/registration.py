"""Stores a Registration, with the model card."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.evaluation.registration import Registration
from materializers.artifact import ArtifactMaterializer


class RegistrationMaterializer(ArtifactMaterializer):
    """``registration.json``, ``provenance.json``, ``model_card.md``, ``model_card.html``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Registration,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def pictures(self, data: Registration) -> dict[str, bytes]:
        """Show the model card."""
        return {"card.html": data.card_html.encode()}

    def facts(self, data: Registration) -> dict[str, MetadataType]:
        """Return the version, its stage and the verdict of each gate."""
        return {
            "model": data.model_name,
            "version": data.version,
            "stage": data.stage,
            "is_new": data.is_new,
            "predictor_fingerprint": data.predictor_fingerprint,
            "gates": {v.gate: v.status for v in data.verdicts},
            **{f"lineage_{key}": value for key, value in data.lineage.items()},
        }
