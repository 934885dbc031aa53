"""Stores a Split, with the sizes of its parts."""

from typing import Any, ClassVar

from zenml.metadata.metadata_types import MetadataType

from cv_factory.artifacts.files import fingerprint
from cv_factory.data.split import Split
from cv_factory.reporting.page import count_table
from materializers.artifact import ArtifactMaterializer


class SplitMaterializer(ArtifactMaterializer):
    """``split.npz``, ``split.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Split,)

    def pictures(self, data: Split) -> dict[str, bytes]:
        """Show how many images each part has."""
        return {"summary.html": self.page(data, count_table("part", data.sizes), without="n_*")}

    def facts(self, data: Split) -> dict[str, MetadataType]:
        """Count the images of each part."""
        return {"seed": data.seed, **{f"n_{name}": n for name, n in data.sizes.items()}}

    def compute_content_hash(self, data: Split) -> str:
        """Hash the indices, the seed and the dataset they are over."""
        parts = {name: indices.tolist() for name, indices in data.items()}
        return fingerprint([parts, data.seed, data.dataset_fingerprint])
