"""ImageFeatures: what a backbone makes of every image of a dataset."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from cv_factory.artifacts.arrays import load_array
from cv_factory.artifacts.artifact import Artifact
from cv_factory.artifacts.npy_stream import save_array
from cv_factory.errors import ArtifactError
from cv_factory.features.backbone import Backbone

_VALUES, _MIRRORED = "features.npy", "mirrored.npy"


@dataclass(frozen=True)
class ImageFeatures(Artifact):
    """A backbone's features of all images of a dataset, in the dataset's order.

    Attributes:
        backbone: Its graph is part of the predictor of every head that is fitted on ``values``.
        image_shape: Height, width and channels of the images.
        dataset_fingerprint: ``ImageDataset.content_hash`` of the images.
        values: float32 ``(N, F)``; memory-mapped where they were loaded.
        mirrored: The same of the images mirrored left to right; None where not asked for.
    """

    KIND: ClassVar[str] = "features"
    PARTS: ClassVar[Mapping[str, type[Artifact]]] = {"backbone": Backbone}

    backbone: Backbone
    image_shape: tuple[int, int, int]
    dataset_fingerprint: str
    values: npt.NDArray[np.float32]
    mirrored: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.values)

    @property
    def n_features(self) -> int:
        """Number of features of an image, F."""
        return self.backbone.n_features

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what determines the values: dataset, backbone, and whether mirrored."""
        parts = (self.dataset_fingerprint, self.backbone.fingerprint, self.mirrored is not None)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        (directory / "backbone").mkdir()
        self.backbone.save(directory / "backbone")
        files: dict[str, str | None] = {_VALUES: save_array(directory / _VALUES, self.values)}
        if self.mirrored is not None:
            files[_MIRRORED] = save_array(directory / _MIRRORED, self.mirrored)
        return files

    def _header(self) -> dict[str, Any]:
        return {
            "shape": list(self.values.shape),
            "image_shape": list(self.image_shape),
            "dataset_fingerprint": self.dataset_fingerprint,
            "is_mirrored": self.mirrored is not None,
        }

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        backbone = Backbone.load(directory / "backbone")
        names = (_VALUES, _MIRRORED) if body["is_mirrored"] else (_VALUES,)
        arrays = [load_array(directory / name, mmap=True) for name in names]
        for name, array in zip(names, arrays, strict=True):
            if array.dtype != np.float32 or list(array.shape) != body["shape"]:
                raise ArtifactError(
                    f"{directory / name} holds {array.dtype} {array.shape}, "
                    f"{cls.KIND}.json says float32 {body['shape']}."
                )
        height, width, channels = body["image_shape"]
        shape = (height, width, channels)
        return cls(backbone, shape, body["dataset_fingerprint"], *arrays)
