"""The FittedTransform: everything that was learned from the training images before the model."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from cv_factory.artifacts.arrays import load_tensors
from cv_factory.artifacts.artifact import Artifact
from cv_factory.cpu import limit_library_threads
from cv_factory.data.dataset import ImageDataset
from cv_factory.errors import ArtifactError, TrainingError
from cv_factory.features.image_features import ImageFeatures
from cv_factory.transforms.embedding import Embedding, fit_embedding
from cv_factory.transforms.feature_pca import fit_feature_pca, project_features
from cv_factory.transforms.normalize import Normalization, fit_normalization
from cv_factory.transforms.patches import PatchPCA, fit_patches
from cv_factory.transforms.pca import PCA, fit_pca, project
from cv_factory.transforms.standardize import (
    Standardization,
    compute_standardization,
    standardize,
)

if TYPE_CHECKING:
    from cv_factory.config.transform import PatchPCAConfig, TransformConfig, UMAPConfig

_log = logging.getLogger(__name__)

_TENSORS = "tensors.safetensors"
_BATCH = 4096
#: Values of patches that are held at once, and patches that are enough.
_PATCH_VALUES, _ENOUGH_PATCHES = 4_000_000, 4_000_000
_NAMES = (
    "normalization_mean",
    "normalization_std",
    "pca_mean",
    "pca_components",
    "pca_explained_variance",
    "pca_explained_variance_ratio",
    "patches_mean",
    "patches_components",
    "patches_explained_variance",
    "standardization_std",
)
_PATCH_NAMES = _NAMES[6:9]
_EMBEDDING_NAMES = ("embedding_positions", "embedding_labels")


@dataclass(frozen=True)
class FittedTransform(Artifact):
    """Normalization, PCA of pixels or of a backbone's features, and labels of one training set.

    Attributes:
        image_shape: Height, width and channels it was fitted for.
        class_names: The label encoding: a label's number is its place here.
        normalization: Per-channel statistics.
        pca: Components of the pixels, or of the features of a backbone.
        patches: Components of patches of normalized pixels; None with a backbone.
        standardization: Of the PCA's features.
        embedding: A map of some training images, where one was asked for.
        n_images: How many training images it was fitted on.
        backbone: Fingerprint of the backbone whose features ``pca`` is of; None for pixels.
    """

    KIND: ClassVar[str] = "transform"
    FORMAT_VERSION: ClassVar[int] = 2

    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    normalization: Normalization
    pca: PCA
    patches: PatchPCA | None
    standardization: Standardization
    n_images: int
    embedding: Embedding | None = None
    backbone: str | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all tensors and parameters."""
        digest = hashlib.sha256(repr((self._parameters(), self.class_names)).encode())
        for name, tensor in self._tensors().items():
            digest.update(name.encode() + tensor.tobytes())
        return digest.hexdigest()

    def model_features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Map images uint8 ``(N, H, W, C)`` to what classical models see, float32 ``(N, k)``.

        Without a backbone: else they see its features as they are.
        """
        return standardize(project(images, self.pca), self.standardization)

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        from safetensors.numpy import save_file

        save_file(self._tensors(), directory / _TENSORS)
        return {_TENSORS: None}

    def _header(self) -> dict[str, Any]:
        return {
            "parameters": self._parameters(),
            "class_names": list(self.class_names),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        parameters = body["parameters"]
        backbone = parameters.get("backbone")
        names = tuple(n for n in _NAMES if backbone is None or n not in _PATCH_NAMES)
        tensors = load_tensors(directory / _TENSORS, names)
        height, width, channels = parameters["image_shape"]
        loaded = cls(
            image_shape=(height, width, channels),
            class_names=tuple(body["class_names"]),
            normalization=Normalization(tensors[_NAMES[0]], tensors[_NAMES[1]]),
            pca=PCA(parameters["pool"], *(tensors[name] for name in _NAMES[2:6])),
            patches=PatchPCA(parameters["patch_size"], *(tensors[name] for name in _PATCH_NAMES))
            if backbone is None
            else None,
            standardization=Standardization(tensors[_NAMES[9]]),
            n_images=parameters["n_images"],
            embedding=_parse_embedding(tensors),
            backbone=backbone,
        )
        if loaded.fingerprint != body["fingerprint"]:
            raise ArtifactError(f"{directory / 'transform.json'}: the fingerprint does not match.")
        return loaded

    def _parameters(self) -> dict[str, object]:
        patches, backbone = self.patches, self.backbone
        return {
            "image_shape": list(self.image_shape),
            "pool": self.pca.pool,
            "n_components": len(self.pca.components),
            **({} if patches is None else {"patch_size": patches.size}),
            "n_images": self.n_images,
            **({} if backbone is None else {"backbone": backbone}),
        }

    def _tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        patches = self.patches
        tensors = (
            self.normalization.mean,
            self.normalization.std,
            self.pca.mean,
            self.pca.components,
            self.pca.explained_variance,
            self.pca.explained_variance_ratio,
            *((None,) * 3 if patches is None else tuple(vars(patches).values())[1:]),
            self.standardization.std,
        )
        pairs = zip(_NAMES, tensors, strict=True)
        named: dict[str, npt.NDArray[np.generic]] = {k: v for k, v in pairs if v is not None}
        if self.embedding is not None:
            embedding = (self.embedding.positions, self.embedding.labels)
            named |= dict(zip(_EMBEDDING_NAMES, embedding, strict=True))
        return named


def fit_transform(
    dataset: ImageDataset,
    train: npt.NDArray[np.int64],
    config: "TransformConfig",
    features: ImageFeatures | None = None,
) -> FittedTransform:
    """Fit everything on the training images alone.

    Args:
        dataset: Holds the images.
        train: Indices of the training images.
        config: Section of the transform.
        features: Of a backbone, for all images of the dataset: the PCA is of them, not of pixels.

    Raises:
        TrainingError: There are fewer images, pixels or values of a patch than components asked
            for, or the features are of other images.
        ConfigError: A map is asked for, and UMAP is not installed.
    """

    def batches() -> Iterator[npt.NDArray[np.uint8]]:
        return dataset.batches(train, _BATCH)

    subject = "PCA" if features is None else f"PCA of {features.backbone.name}'s features"
    _log.info("Fitting normalization and %s on %s training images.", subject, f"{len(train):,}")
    limit_library_threads()
    normalization = fit_normalization(batches())
    if features is None:
        pca = fit_pca(batches(), config.pca.n_components, dataset.image_shape)
        patches = _fit_patches(dataset, train, normalization, config.patches)
    else:
        check_features(features, dataset)
        pca = fit_feature_pca(features.values, train, config.pca.n_components)
        patches = None
    return FittedTransform(
        image_shape=dataset.image_shape,
        class_names=dataset.class_names,
        normalization=normalization,
        pca=pca,
        patches=patches,
        standardization=compute_standardization(pca),
        n_images=len(train),
        embedding=_fit_embedding(dataset, train, pca, config.umap, features),
        backbone=None if features is None else features.backbone.fingerprint,
    )


def check_features(features: ImageFeatures, dataset: ImageDataset) -> None:
    """Check that features are of the images of a dataset.

    Raises:
        TrainingError: They are not.
    """
    if features.dataset_fingerprint != dataset.content_hash or len(features) != len(dataset):
        raise TrainingError(
            "The features are of another dataset: run the step compute_features again."
        )


def _fit_patches(
    dataset: ImageDataset,
    train: npt.NDArray[np.int64],
    normalization: Normalization,
    config: "PatchPCAConfig",
) -> PatchPCA:
    height, width, channels = dataset.image_shape
    sample = _spread(train, min(config.n_images, 1 + _ENOUGH_PATCHES // (height * width)))
    batch = max(1, _PATCH_VALUES // (height * width * channels * config.size**2))
    return fit_patches(dataset.batches(sample, batch), normalization, config)


def _fit_embedding(
    dataset: ImageDataset,
    train: npt.NDArray[np.int64],
    pca: PCA,
    config: "UMAPConfig | None",
    features: ImageFeatures | None,
) -> Embedding | None:
    if config is None:
        return None
    sample = _spread(train, config.n_images)
    if features is not None:
        projected = project_features(features.values[sample], pca)
    else:
        projected = np.concatenate([project(b, pca) for b in dataset.batches(sample, _BATCH)])
    return fit_embedding(projected, dataset.labels[sample], config)


def _spread(indices: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Return up to ``n`` of the indices, evenly spread."""
    n = min(n, len(indices))
    return indices[np.linspace(0, len(indices) - 1, n).astype(np.int64)]


def _parse_embedding(tensors: dict[str, npt.NDArray[Any]]) -> Embedding | None:
    if _EMBEDDING_NAMES[0] not in tensors:
        return None
    return Embedding(*(tensors[name] for name in _EMBEDDING_NAMES))
