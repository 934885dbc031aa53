"""Principal component analysis of pixels, fitted in one pass over images larger than memory.

The Gram matrix is accumulated chunk by chunk, then its leading eigenvectors are taken: I. T.
Jolliffe, Principal Component Analysis, 2nd ed., 2002, ch. 1. Large images are average-pooled first,
which bounds the Gram matrix.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cv_factory.errors import TrainingError
from cv_factory.transforms.eigen import leading_eigenvectors
from cv_factory.transforms.moments import create_moments

_log = logging.getLogger(__name__)

#: Pixels are pooled until an image has at most this many values: eigenvectors cost their cube.
LARGEST_DIMENSION = 3072
_DEFAULT_COMPONENTS = 32
#: Images pooled at once: they are float32 then.
_POOLED_IMAGES = 1024


@dataclass(frozen=True)
class PCA:
    """Fitted components of pixels / 255 after pooling, or of a backbone's features.

    Attributes:
        pool: Side of the square that is averaged; 1 for none. A remainder at the edge is cut off.
        mean: float32 ``(D,)``, mean of the flattened pooled pixels (rows, columns, channels), or
            of the features.
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


def pooled_dimension(image_shape: tuple[int, int, int]) -> int:
    """Return the number of values of a pooled image ``(H, W, C)``."""
    (height, width, channels), pool = image_shape, pool_for(image_shape)
    return (height // pool) * (width // pool) * channels


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
    batches: Iterable[npt.NDArray[np.uint8]],
    n_components: int | None,
    image_shape: tuple[int, int, int],
) -> PCA:
    """Fit on batches uint8 ``(n, H, W, C)`` in one pass.

    Args:
        batches: The training images.
        n_components: How many components to keep; None for 32, or all if there are fewer.
        image_shape: Height, width, channels.

    Raises:
        TrainingError: There are fewer images or pixels than components asked for.
    """
    pool, dimension = pool_for(image_shape), pooled_dimension(image_shape)
    moments = create_moments(dimension, whole=pool == 1)
    for batch in batches:
        for rows in _rows(batch, pool):
            moments.add(rows)
    n_components = count_components(n_components, moments.count, dimension)
    return build_pca(pool, *moments.mean_and_covariance(), n_components)


def build_pca(
    pool: int,
    mean: npt.NDArray[np.float64],
    covariance: npt.NDArray[np.float64],
    n_components: int,
) -> PCA:
    """Take the leading components of a covariance float64 ``(D, D)``."""
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


def count_components(n_components: int | None, n_images: int, dimension: int) -> int:
    """Return how many components to keep of those that the images have.

    Raises:
        TrainingError: More are configured.
    """
    most = max(min(n_images - 1, dimension), 0)
    if n_components is None and most >= 1:
        n_components = min(_DEFAULT_COMPONENTS, most)
        if n_components < _DEFAULT_COMPONENTS:
            _log.info(
                "PCA: %d components, since %d training images of %d values have no more.",
                *(n_components, n_images, dimension),
            )
    if n_components is None or n_components > most:
        raise TrainingError(
            f"transform.pca.n_components is {n_components}, but {n_images} training images of "
            f"{dimension} values have at most {most} components. Lower it, or give more images."
        )
    return n_components


def _rows(images: npt.NDArray[np.uint8], pool: int) -> Iterator[npt.NDArray[Any]]:
    """Yield images as rows of values 0 to 255: uint8 as they are, float32 where they are pooled."""
    if pool == 1:
        yield images.reshape(len(images), -1)
        return
    for start in range(0, len(images), _POOLED_IMAGES):
        yield flatten_pixels(images[start : start + _POOLED_IMAGES], pool) * np.float32(255)
