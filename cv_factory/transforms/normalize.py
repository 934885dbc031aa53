"""Per-channel normalization: the mean and standard deviation of the training pixels."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Standard deviations below this (of pixels / 255) are taken as it, so that a constant channel
#: is not blown up.
_SMALLEST_STD = 1e-3


@dataclass(frozen=True)
class Normalization:
    """Statistics of pixels / 255, float32 ``(C,)`` each."""

    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]


def fit_normalization(batches: Iterable[npt.NDArray[np.uint8]]) -> Normalization:
    """Fit on batches uint8 ``(n, H, W, C)``, exactly: from the histogram of the 256 values.

    Raises:
        ValueError: There are no images.
    """
    histogram: npt.NDArray[np.int64] | None = None
    for batch in batches:
        channels = batch.shape[-1]
        counts = np.stack(
            [np.bincount(batch[..., c].ravel(), minlength=256) for c in range(channels)]
        )
        histogram = counts if histogram is None else histogram + counts
    if histogram is None:
        raise ValueError("normalization needs at least one image")
    values = np.arange(256) / 255.0
    weights = histogram / histogram.sum(axis=1, keepdims=True)
    mean = weights @ values
    variance = weights @ values**2 - mean**2
    std = np.maximum(np.sqrt(np.maximum(variance, 0.0)), _SMALLEST_STD)
    return Normalization(mean.astype(np.float32), std.astype(np.float32))


def normalize(
    images: npt.NDArray[np.uint8], normalization: Normalization
) -> npt.NDArray[np.float32]:
    """Map uint8 ``(N, H, W, C)`` to normalized float32 ``(N, C, H, W)``."""
    scaled = images.astype(np.float32) / np.float32(255)
    normalized = (scaled - normalization.mean) / normalization.std
    return np.ascontiguousarray(normalized.transpose(0, 3, 1, 2))
