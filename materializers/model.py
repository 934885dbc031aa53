"""Stores a TrainedModel, with its training curves."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.evaluation.plots.training_curves import training_curves
from cv_factory.training.stability import describe_instability
from cv_factory.training.trained_model import TrainedModel
from materializers.artifact import ArtifactMaterializer


class TrainedModelMaterializer(ArtifactMaterializer):
    """``weights.safetensors`` or ``model.onnx``, ``reference.npz``, ``model.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (TrainedModel,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def pictures(self, data: TrainedModel) -> dict[str, bytes]:
        """Draw loss and accuracy by epoch, where there was more than one."""
        if len(data.history) < 2:
            return {}  # fitted in one go: the facts say it all
        return {"training_curves.png": training_curves(data.history, data.best_epoch)}

    def facts(self, data: TrainedModel) -> dict[str, MetadataType]:
        """Name the model and its best epoch."""
        best = data.history[data.best_epoch - 1]
        instability = describe_instability(data.history)
        return {
            "model": data.config.name,
            "best_epoch": data.best_epoch,
            **({} if data.precision == "fp32" else {"precision": data.precision}),
            **({"instability": instability} if instability else {}),
            "validation_accuracy": best["validation_accuracy"],
            "validation_loss": best["validation_loss"],
            "fingerprint": data.fingerprint,
        }

    def compute_content_hash(self, data: TrainedModel) -> str:
        """Hash weights, configuration and reference outputs."""
        return data.fingerprint
