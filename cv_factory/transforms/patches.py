"""PCA of square patches of normalized images: the first layer of a network that whitens them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cv_factory.errors import TrainingError
from cv_factory.transforms.eigen import leading_eigenvectors
from cv_factory.transforms.normalize import Normalization, normalize

if TYPE_CHECKING:
    from cv_factory.config.transform import PatchPCAConfig

_DEFAULT_COMPONENTS = 16


@dataclass(frozen=True)
class PatchPCA:
    """Fitted components of patches of normalized images.

    Attributes:
        size: Side of a patch.
        mean: float32 ``(D,)``, mean patch; D counts channels, rows, columns, as torch's
            convolutions order their weights.
        components: float32 ``(k, D)``, orthonormal rows.
        explained_variance: float64 ``(k,)``, variance along each component, descending.
    """

    size: int
    mean: npt.NDArray[np.float32]
    components: npt.NDArray[np.float32]
    explained_variance: npt.NDArray[np.float64]


def fit_patches(
    batches: Iterable[npt.NDArray[np.uint8]],
    normalization: Normalization,
    config: "PatchPCAConfig",
) -> PatchPCA:
    """Fit on all patches of batches uint8 ``(n, H, W, C)`` in one pass.

    Raises:
        TrainingError: A patch is larger than an image, or has fewer values than components.
    """
    size, count = config.size, 0
    total, gram = np.zeros(0), np.zeros((0, 0))
    for batch in batches:
        rows = cut_patches(normalize(batch, normalization), size)
        if not count:
            total, gram = np.zeros(rows.shape[1]), np.zeros((rows.shape[1],) * 2)
        total += rows.sum(axis=0, dtype=np.float64)
        gram += (rows.T @ rows).astype(np.float64)
        count += len(rows)
    n_components = _n_components(config, len(total))
    mean = total / count
    covariance = gram / count - np.outer(mean, mean)
    values, vectors = leading_eigenvectors(covariance, n_components)
    return PatchPCA(size, mean.astype(np.float32), vectors.astype(np.float32), values)


def cut_patches(images: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Cut normalized images ``(N, C, H, W)`` into all their patches ``(P, C * size * size)``.

    Raises:
        TrainingError: A patch is larger than an image.
    """
    _, channels, height, width = images.shape
    if size > min(height, width):
        raise TrainingError(
            f"transform.patches.size is {size} pixels, but images are only {height}x{width}."
        )
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(2, 3))
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * size * size)
    return np.ascontiguousarray(rows, dtype=np.float32)


def _n_components(config: "PatchPCAConfig", dimension: int) -> int:
    if config.n_components is None:
        return min(_DEFAULT_COMPONENTS, dimension)
    if config.n_components > dimension:
        raise TrainingError(
            f"transform.patches.n_components is {config.n_components}, but patches of "
            f"{config.size}x{config.size} pixels have {dimension} values. Lower it."
        )
    return config.n_components
