"""Stores a backbone, and its features of all images of a dataset."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.features.backbone import Backbone
from cv_factory.features.image_features import ImageFeatures
from materializers.artifact import ArtifactMaterializer


class BackboneMaterializer(ArtifactMaterializer):
    """``backbone.onnx``, ``backbone.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Backbone,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def facts(self, data: Backbone) -> dict[str, MetadataType]:
        """Name the backbone, its weights and their license."""
        return _describe_backbone(data)

    def compute_content_hash(self, data: Backbone) -> str:
        """Hash the graph."""
        return data.fingerprint


class ImageFeaturesMaterializer(ArtifactMaterializer):
    """``features.npy``, ``mirrored.npy``, ``backbone/``, ``features.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (ImageFeatures,)

    def facts(self, data: ImageFeatures) -> dict[str, MetadataType]:
        """Count images and features, and name the backbone."""
        return {
            "n_images": len(data),
            "n_features": data.n_features,
            "is_mirrored": data.mirrored is not None,
            **_describe_backbone(data.backbone),
        }

    def compute_content_hash(self, data: ImageFeatures) -> str:
        """Hash what determines the values."""
        return data.fingerprint


def _describe_backbone(backbone: Backbone) -> dict[str, MetadataType]:
    return {
        "backbone": backbone.name,
        "input_size": backbone.input_size,
        "license": backbone.license,
        "weights_sha256": backbone.weights_sha256,
        "backbone_fingerprint": backbone.fingerprint,
        "fine_tuned_epochs": backbone.fine_tuned_epochs,
    }
