"""Stores an Evaluation, with the confusion matrix and the classes' figures."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.plots import confusion_matrix, per_class_bars
from materializers.noun import NounMaterializer


class EvaluationMaterializer(NounMaterializer):
    """``predictions.parquet``, ``evaluation.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Evaluation,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS
    HEADER: ClassVar[str] = "evaluation.json"

    def pictures(self, data: Evaluation) -> dict[str, bytes]:
        """Draw the confusion matrix and precision, recall and F1 of each class."""
        rows = data.per_class
        return {
            "confusion_matrix.png": confusion_matrix(data.confusion, data.class_names),
            "per_class.png": per_class_bars(
                data.class_names,
                [row.precision for row in rows],
                [row.recall for row in rows],
                [row.f1 for row in rows],
            ),
        }

    def facts(self, data: Evaluation) -> dict[str, MetadataType]:
        """Return the metrics with their intervals; one that is undefined gives its reason."""
        facts: dict[str, MetadataType] = {
            "n_images": data.n_images,
            "confidence": data.confidence,
            "predictor_fingerprint": data.predictor_fingerprint,
        }
        for name, metric in data.metrics.items():
            facts[name] = metric.value if metric.value is not None else str(metric.reason)
            if metric.low is not None and metric.high is not None:
                facts[f"{name}_interval"] = [metric.low, metric.high]
        return facts
