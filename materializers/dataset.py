"""Stores an ImageDataset, with a grid of labelled samples."""

from typing import Any, ClassVar

from zenml.metadata.metadata_types import MetadataType

from cv_factory.data.dataset import ImageDataset
from cv_factory.evaluation.plots.fonts import writable_names
from cv_factory.evaluation.plots.samples import sample_grid
from cv_factory.evaluation.selection import spread_over_classes
from materializers.artifact import ArtifactMaterializer

_SAMPLES = 40


class ImageDatasetMaterializer(ArtifactMaterializer):
    """``images.npy``, ``manifest.parquet``, ``dataset.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (ImageDataset,)

    def pictures(self, data: ImageDataset) -> dict[str, bytes]:
        """Draw up to 40 images, spread over all classes, under their labels."""
        chosen = spread_over_classes(data.labels, _SAMPLES)
        written = writable_names(data.class_names)
        names = [written[i] if i >= 0 else "" for i in data.labels[chosen]]
        heading = f"{len(chosen)} of {len(data):,} images, {data.source}"
        return {"samples.png": sample_grid(data.images[chosen], names, heading=heading)}

    def facts(self, data: ImageDataset) -> dict[str, MetadataType]:
        """Count images, classes and what was left out."""
        height, width, channels = data.image_shape
        return {
            "source": data.source,
            "n_images": len(data),
            "image_size": f"{height}x{width}x{channels}",
            "n_classes": len(data.class_names),
            "class_counts": dict(data.class_counts),
            "n_unreadable": len(data.unreadable),
            "data_fingerprint": data.fingerprint,
        }

    def compute_content_hash(self, data: ImageDataset) -> str:
        """Hash pixels, labels, manifest and order."""
        return data.content_hash
