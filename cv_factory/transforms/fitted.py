"""The FittedTransform: everything that was learned from the training images before the model."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cv_factory.array_files import load_tensors
from cv_factory.artifact_files import read_header, write_header
from cv_factory.config import TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.errors import ArtifactError
from cv_factory.transforms.normalize import Normalization, fit_normalization
from cv_factory.transforms.pca import PCA, fit_pca

_KIND, _VERSION, _TENSORS = "transform", 1, "tensors.safetensors"
_BATCH = 4096
_NAMES = (
    "normalization_mean",
    "normalization_std",
    "pca_mean",
    "pca_components",
    "pca_explained_variance",
    "pca_explained_variance_ratio",
)


@dataclass(frozen=True)
class FittedTransform:
    """Normalization statistics, PCA and label encoding of one training set.

    Attributes:
        image_shape: Height, width and channels it was fitted for.
        class_names: The label encoding: a label's number is its place here.
        normalization: Per-channel statistics.
        pca: Components of the pixels.
        n_images: How many training images it was fitted on.
    """

    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    normalization: Normalization
    pca: PCA
    n_images: int

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all tensors and parameters."""
        digest = hashlib.sha256(repr((self._parameters(), self.class_names)).encode())
        for name, tensor in self._tensors().items():
            digest.update(name.encode() + tensor.tobytes())
        return digest.hexdigest()

    def save(self, directory: Path) -> None:
        """Write ``tensors.safetensors`` and ``transform.json``."""
        from safetensors.numpy import save_file

        save_file(self._tensors(), directory / _TENSORS)
        body = {
            "parameters": self._parameters(),
            "class_names": list(self.class_names),
            "fingerprint": self.fingerprint,
        }
        write_header(directory, _KIND, _VERSION, body, [_TENSORS])

    @classmethod
    def load(cls, directory: Path) -> "FittedTransform":
        """Read a fitted transform.

        Raises:
            ArtifactError: It is damaged, incomplete or of another format version.
        """
        body = read_header(directory, _KIND, _VERSION)
        tensors = load_tensors(directory / _TENSORS, _NAMES)
        height, width, channels = body["parameters"]["image_shape"]
        loaded = cls(
            image_shape=(height, width, channels),
            class_names=tuple(body["class_names"]),
            normalization=Normalization(tensors[_NAMES[0]], tensors[_NAMES[1]]),
            pca=PCA(body["parameters"]["pool"], *(tensors[name] for name in _NAMES[2:])),
            n_images=body["parameters"]["n_images"],
        )
        if loaded.fingerprint != body["fingerprint"]:
            raise ArtifactError(f"{directory / 'transform.json'}: the fingerprint does not match.")
        return loaded

    def _parameters(self) -> dict[str, object]:
        return {
            "image_shape": list(self.image_shape),
            "pool": self.pca.pool,
            "n_components": len(self.pca.components),
            "n_images": self.n_images,
        }

    def _tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        tensors = (
            self.normalization.mean,
            self.normalization.std,
            self.pca.mean,
            self.pca.components,
            self.pca.explained_variance,
            self.pca.explained_variance_ratio,
        )
        return dict(zip(_NAMES, tensors, strict=True))


def fit_transform(
    dataset: ImageDataset, train: npt.NDArray[np.int64], config: TransformConfig
) -> FittedTransform:
    """Fit normalization and PCA on the training images alone.

    Raises:
        TrainingError: There are fewer images or pixels than components asked for.
    """

    def batches() -> Iterator[npt.NDArray[np.uint8]]:
        return dataset.batches(train, _BATCH)

    return FittedTransform(
        image_shape=dataset.image_shape,
        class_names=dataset.class_names,
        normalization=fit_normalization(batches()),
        pca=fit_pca(batches(), config.pca.n_components, dataset.image_shape),
        n_images=len(train),
    )
