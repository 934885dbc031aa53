"""Standardization of the PCA features: what the classical models see."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cv_factory.transforms.pca import PCA

#: A component whose deviation is below this share of the first one's holds rounding errors only.
_NO_VARIANCE = 1e-5


@dataclass(frozen=True)
class Standardization:
    """Standard deviation of each feature, float32 ``(k,)``; features are centered already."""

    std: npt.NDArray[np.float32]


def compute_standardization(pca: PCA) -> Standardization:
    """Read the statistics off the PCA: its features have mean 0 and its explained variances."""
    std = np.sqrt(pca.explained_variance)
    std = np.where(std > _NO_VARIANCE * std[0], std, 1.0)
    return Standardization(np.asarray(std, dtype=np.float32))


def standardize(
    features: npt.NDArray[np.float32], standardization: Standardization
) -> npt.NDArray[np.float32]:
    """Scale features float32 ``(N, k)`` to unit variance."""
    return features / standardization.std
