"""UMAP: a map of training images in two dimensions, for people to look at.

L. McInnes et al., UMAP: Uniform Manifold Approximation and Projection, 2018. It serves plots alone:
an image mapped by itself lands elsewhere than in a batch, so that no predictor can hold it.
"""

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cv_factory.errors import ConfigError, missing_extra

if TYPE_CHECKING:
    from cv_factory.config.transform import UMAPConfig


@dataclass(frozen=True)
class Embedding:
    """Positions of images on the map float32 ``(n, 2)``, and their labels int64 ``(n,)``."""

    positions: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def check_installed() -> None:
    """Check that UMAP is there.

    Raises:
        ConfigError: It is missing; the message names the extra that brings it.
    """
    if importlib.util.find_spec("umap") is None:
        raise ConfigError(
            "transform.umap needs umap-learn, which is not installed. Remove the section, or: "
            + missing_extra("backbones")
        )


def fit_embedding(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], config: "UMAPConfig"
) -> Embedding:
    """Map features float32 ``(n, k)``; the same features give the same map.

    Raises:
        ConfigError: UMAP is not installed.
    """
    check_installed()
    from umap import UMAP

    # The spectral start is not reproducible on separated clusters, this one is.
    mapper = UMAP(
        n_neighbors=min(config.n_neighbors, len(features) - 1),
        min_dist=config.min_dist,
        init="pca",
        random_state=config.seed,
        n_jobs=1,
    )
    positions = mapper.fit_transform(features)
    return Embedding(np.asarray(positions, dtype=np.float32), labels)
