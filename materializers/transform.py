"""Stores a FittedTransform, with the PCA's spectrum and components."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.evaluation.plots.projections import feature_map, pca_components, pca_spectrum
from cv_factory.transforms.fitted import FittedTransform
from materializers.artifact import ArtifactMaterializer


class FittedTransformMaterializer(ArtifactMaterializer):
    """``tensors.safetensors``, ``transform.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (FittedTransform,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def pictures(self, data: FittedTransform) -> dict[str, bytes]:
        """Draw explained variance, the first components, and the map where there is one."""
        height, width, channels = data.image_shape
        pooled = (height // data.pca.pool, width // data.pca.pool, channels)
        pictures = {"pca_spectrum.png": pca_spectrum(data.pca.explained_variance_ratio)}
        if data.backbone is None:
            pictures["pca_components.png"] = pca_components(data.pca.components, pooled)
        if data.embedding is not None:
            positions, labels = data.embedding.positions, data.embedding.labels
            pictures["umap.png"] = feature_map(positions, labels, data.class_names)
        return pictures

    def facts(self, data: FittedTransform) -> dict[str, MetadataType]:
        """Summarize what was fitted."""
        return {
            "n_images": data.n_images,
            "n_components": len(data.pca.components),
            "explained_variance": float(data.pca.explained_variance_ratio.sum()),
            "pixel_mean": [float(value) for value in data.normalization.mean],
            "pixel_std": [float(value) for value in data.normalization.std],
            "classes": list(data.class_names),
            **({"backbone_fingerprint": data.backbone} if data.backbone else {}),
            "fingerprint": data.fingerprint,
        }

    def compute_content_hash(self, data: FittedTransform) -> str:
        """Hash all tensors and parameters."""
        return data.fingerprint
