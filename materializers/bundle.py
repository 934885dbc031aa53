"""Stores a Bundle, with its model card."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.serving.bundle import Bundle
from materializers.artifact import ArtifactMaterializer


class BundleMaterializer(ArtifactMaterializer):
    """``predictor/``, ``serving.json``, ``card.html`` and ``bundle.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Bundle,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.SERVICE

    def pictures(self, data: Bundle) -> dict[str, bytes]:
        """Show what is served, and the model card."""
        card = {"model_card.html": data.card_html.encode()} if data.card_html else {}
        return {"summary.html": self.page(data), **card}

    def facts(self, data: Bundle) -> dict[str, MetadataType]:
        """Return what a service of the bundle would serve."""
        return {
            "model": f"{data.model_name} version {data.version}",
            "predictor_fingerprint": data.predictor.fingerprint,
            "postprocessor": data.serving.postprocessor.name,
            "workers": data.serving.workers,
        }
