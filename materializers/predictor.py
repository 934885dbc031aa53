"""Stores a Predictor, with its golden samples and what it answers to them."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.evaluation.plots.fonts import writable_names
from cv_factory.evaluation.plots.samples import sample_grid
from cv_factory.inference.predictor import Predictor
from materializers.artifact import ArtifactMaterializer


class PredictorMaterializer(ArtifactMaterializer):
    """``predictor.onnx``, ``golden.npz``, ``contract.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Predictor,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def pictures(self, data: Predictor) -> dict[str, bytes]:
        """Draw the golden samples under predicted class and probability."""
        best = data.golden.probabilities.argmax(axis=1)
        names = writable_names(data.contract.class_names)
        titles = [
            f"{names[k]} {row[k]:.0%}"
            for k, row in zip(best, data.golden.probabilities, strict=True)
        ]
        heading = "Golden samples: what the predictor answers"
        images = data.golden.images
        return {"golden.png": sample_grid(images, titles, heading=heading, max_images=len(images))}

    def facts(self, data: Predictor) -> dict[str, MetadataType]:
        """Summarize graph and contract."""
        from cv_factory.evaluation.graph_size import count

        contract = data.contract
        check = contract.calibration
        return {
            "fingerprint": data.fingerprint,
            "onnx_bytes": len(data.graph),
            "parameters": count(data.graph)[0],
            "input": f"uint8 (N, {contract.height}, {contract.width}, {contract.channels})",
            "classes": list(contract.class_names),
            "model": contract.model["name"],
            "precision": contract.precision,
            **({"backbone": contract.backbone.name} if contract.backbone else {}),
            **({"value_range": list(contract.value_range)} if contract.value_range else {}),
            "temperature": contract.temperature,
            **({"calibration_warning": check.warning} if check and check.warning else {}),
            "fingerprints": dict(contract.fingerprints),
        }

    def compute_content_hash(self, data: Predictor) -> str:
        """Hash graph, contract and golden samples."""
        return data.fingerprint
