"""Principal component analysis of pixels, fitted in one pass over images larger than memory.

The Gram matrix is accumulated chunk by chunk, then its leading eigenvectors are taken: I. T.
Jolliffe, Principal Component Analysis, 2nd ed., 2002, ch. 1. Pixels less 128 are whole numbers, and
a chunk is so short that every partial sum of products is one below 2**24, which float32 holds
exactly: single precision's speed, no rounding, and the same matrix in any order and on any device.
Large images are average-pooled first, which bounds the Gram matrix; there, products are rounded.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cv_factory.errors import TrainingError
from cv_factory.transforms.eigen import leading_eigenvectors

#: Pixels are pooled until an image has at most this many values: eigenvectors cost their cube.
LARGEST_DIMENSION = 3072

_SHIFT = 128
#: 1024 products of at most 128 x 128 sum to at most 2**24.
_EXACT_ROWS = 1024
#: Below it the product takes less than importing torch, which finds the GPU.
_SMALLEST_ON_GPU = 1024


@dataclass(frozen=True)
class PCA:
    """Fitted components of pixels / 255 after pooling.

    Attributes:
        pool: Side of the square that is averaged; 1 for none. A remainder at the edge is cut off.
        mean: float32 ``(D,)``, mean of the flattened pooled pixels (rows, columns, channels).
        components: float32 ``(k, D)``, orthonormal rows; the entry of largest magnitude in each is
            positive.
        explained_variance: float64 ``(k,)``, variance along each component, descending.
        explained_variance_ratio: float64 ``(k,)``, share of the total variance.
    """

    pool: int
    mean: npt.NDArray[np.float32]
    components: npt.NDArray[np.float32]
    explained_variance: npt.NDArray[np.float64]
    explained_variance_ratio: npt.NDArray[np.float64]


def pool_for(image_shape: tuple[int, int, int]) -> int:
    """Return the smallest pooling that brings ``(H, W, C)`` to ``LARGEST_DIMENSION`` values."""
    height, width, channels = image_shape
    pool = 1
    while (height // pool) * (width // pool) * channels > LARGEST_DIMENSION:
        pool += 1
    return pool


def flatten_pixels(images: npt.NDArray[np.uint8], pool: int) -> npt.NDArray[np.float32]:
    """Scale to [0, 1], average-pool and flatten uint8 ``(N, H, W, C)`` to float32 ``(N, D)``."""
    scaled = images.astype(np.float32) / np.float32(255)
    n, height, width, channels = scaled.shape
    rows, columns = height // pool, width // pool
    if pool > 1:
        squares = scaled[:, : rows * pool, : columns * pool].reshape(
            n, rows, pool, columns, pool, channels
        )
        scaled = squares.mean(axis=(2, 4), dtype=np.float32)
    return scaled.reshape(n, rows * columns * channels)


def fit_pca(
    batches: Iterable[npt.NDArray[np.uint8]], n_components: int, image_shape: tuple[int, int, int]
) -> PCA:
    """Fit on batches uint8 ``(n, H, W, C)`` in one pass.

    Args:
        batches: The training images.
        n_components: How many components to keep.
        image_shape: Height, width, channels.

    Raises:
        TrainingError: There are fewer images or pixels than components asked for.
    """
    pool = pool_for(image_shape)
    height, width, channels = image_shape
    dimension = (height // pool) * (width // pool) * channels
    moments = _Moments(dimension)
    for batch in batches:
        moments.add(batch, pool)
    if n_components > min(moments.count - 1, dimension):
        raise TrainingError(
            f"transform.pca.n_components is {n_components}, but {moments.count} training images of "
            f"{dimension} values have at most {max(min(moments.count - 1, dimension), 0)} "
            "components. Lower it, or give more images."
        )
    mean, covariance = moments.mean_and_covariance()
    values, vectors = leading_eigenvectors(covariance, n_components)
    total = float(np.trace(covariance))
    return PCA(
        pool=pool,
        mean=mean.astype(np.float32),
        components=vectors.astype(np.float32),
        explained_variance=values,
        explained_variance_ratio=values / total if total > 0 else np.zeros_like(values),
    )


def project(images: npt.NDArray[np.uint8], pca: PCA) -> npt.NDArray[np.float32]:
    """Project uint8 ``(N, H, W, C)`` on the components: float32 features ``(N, k)``."""
    features: npt.NDArray[np.float32] = flatten_pixels(images, pca.pool) - pca.mean
    projected: npt.NDArray[np.float32] = features @ pca.components.T
    return projected


class _Moments:
    """Count, sum and Gram matrix of rows of values 0 to 255 that pass by, less ``_SHIFT``."""

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self._sum = np.zeros(dimension)
        self._gram = np.zeros((dimension, dimension))
        self._product = _product_on(dimension)

    def add(self, images: npt.NDArray[np.uint8], pool: int) -> None:
        """Add images uint8 ``(n, H, W, C)``."""
        for start in range(0, len(images), _EXACT_ROWS):
            rows = _rows(images[start : start + _EXACT_ROWS], pool)
            self._sum += rows.sum(axis=0)
            self._gram += self._product(rows)
            self.count += len(rows)

    def mean_and_covariance(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the mean ``(D,)`` and covariance ``(D, D)`` of pixels / 255; call it once."""
        offset = self._sum / self.count
        covariance = self._gram  # in place: at 3,072 values it is 75 MB
        covariance -= np.outer(self.count * offset, offset)
        covariance /= (self.count - 1) * 255.0**2
        return (offset + _SHIFT) / 255, covariance


def _rows(images: npt.NDArray[np.uint8], pool: int) -> npt.NDArray[np.float32]:
    if pool > 1:
        return flatten_pixels(images, pool) * np.float32(255) - np.float32(_SHIFT)
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows -= np.float32(_SHIFT)
    return rows


_Product = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def _product_on(dimension: int) -> _Product:
    """Return the function from rows to their Gram matrix: on the GPU where it pays and is there."""
    if dimension < _SMALLEST_ON_GPU:
        return lambda rows: rows.T @ rows
    import torch

    if not torch.cuda.is_available():
        return lambda rows: rows.T @ rows

    def product(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        on_device = torch.from_numpy(rows).cuda()
        gram: npt.NDArray[np.float32] = (on_device.T @ on_device).cpu().numpy()
        return gram

    return product
