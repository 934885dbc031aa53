"""Stores an Evaluation, with its report."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.plots.confusion import confusion_matrix
from cv_factory.evaluation.reports.evaluation_report import render_report
from materializers.artifact import ArtifactMaterializer


class EvaluationMaterializer(ArtifactMaterializer):
    """``predictions.parquet``, ``probabilities.npy``, ``samples.npz``, ``evaluation.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Evaluation,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def pictures(self, data: Evaluation) -> dict[str, bytes]:
        """Show the report, and the confusion matrix for the impatient."""
        return {
            "report.html": render_report(data).encode(),
            "confusion_matrix.png": confusion_matrix(data.confusion, data.class_names),
        }

    def facts(self, data: Evaluation) -> dict[str, MetadataType]:
        """Return the metrics with their intervals; one that is undefined gives its reason."""
        facts: dict[str, MetadataType] = {
            "n_images": data.n_images,
            "confidence": data.confidence,
            "predictor_fingerprint": data.predictor_fingerprint,
            **data.behavior.figures(),
        }
        if data.ranked_slices:
            worst = data.ranked_slices[0]
            facts["worst_slice"] = f"{worst.name}: {worst.accuracy:.4f}"
        for name, metric in data.metrics.items():
            facts[name] = metric.value if metric.value is not None else str(metric.reason)
            if metric.low is not None and metric.high is not None:
                facts[f"{name}_interval"] = [metric.low, metric.high]
        return facts
