"""Stores BatchPredictions: the account of a batch job, not its rows."""

from typing import Any, ClassVar

from zenml.metadata.metadata_types import MetadataType

from cv_factory.inference.batch_predictions import BatchPredictions
from cv_factory.reporting.page import count_table
from materializers.artifact import ArtifactMaterializer


class BatchPredictionsMaterializer(ArtifactMaterializer):
    """``batch_predictions.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (BatchPredictions,)
    FORMER_MODULES: ClassVar[tuple[str, ...]] = ("cv_factory.inference.predictions",)

    def pictures(self, data: BatchPredictions) -> dict[str, bytes]:
        """Show how many images each class was predicted for."""
        counts = count_table("predicted class", data.class_counts)
        return {"summary.html": self.page(data, counts, without="class_counts")}

    def facts(self, data: BatchPredictions) -> dict[str, MetadataType]:
        """Return source, model version, counts and output folder."""
        return {
            "folder": data.folder,
            "source": data.source,
            "model": f"{data.model_name} version {data.model_version}",
            "predictor_fingerprint": data.predictor_fingerprint,
            "n_rows": data.n_rows,
            "n_quarantined": data.n_quarantined,
            **({} if data.n_unfamiliar is None else {"n_unfamiliar": data.n_unfamiliar}),
            "class_counts": data.class_counts,
        }
