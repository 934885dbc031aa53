"""Stores CollectedPredictions: the account of what a monitoring run looks at, not its rows."""

from typing import Any, ClassVar

from zenml.metadata.metadata_types import MetadataType

from cv_factory.monitoring.collected_predictions import CollectedPredictions
from materializers.artifact import ArtifactMaterializer


class CollectedPredictionsMaterializer(ArtifactMaterializer):
    """``collected_predictions.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (CollectedPredictions,)

    def facts(self, data: CollectedPredictions) -> dict[str, MetadataType]:
        """Return source, bounds and remarks."""
        return {
            "source": data.source,
            "start": data.start or "no bound",
            "end": data.end or "no bound",
            "remarks": list(data.remarks),
        }
