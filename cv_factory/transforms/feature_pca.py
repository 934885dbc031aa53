"""Principal component analysis of a backbone's features.

The first components of some thousand values tell monitoring and the prediction log enough of an
image; a head sees the features themselves.
"""

import numpy as np
import numpy.typing as npt

from cv_factory.transforms.pca import PCA, build_pca, count_components

_ROWS = 4096


def fit_feature_pca(
    values: npt.NDArray[np.float32], train: npt.NDArray[np.int64], n_components: int | None
) -> PCA:
    """Fit on the features of the training images.

    Args:
        values: Of all images, float32 ``(N, F)``; may be memory-mapped.
        train: Indices of the training images.
        n_components: How many components to keep; None for 32, or all if there are fewer.

    Returns:
        Of features as they are: ``pool`` is 1, ``mean`` is ``(F,)``.

    Raises:
        TrainingError: There are fewer images or features than components asked for.
    """
    dimension = values.shape[1]
    n_components = count_components(n_components, len(train), dimension)
    # Less the mean of some, so that sums of products in float32 lose nothing.
    shift = values[train[:_ROWS]].mean(axis=0)
    total: npt.NDArray[np.float64] = np.zeros(dimension)
    gram: npt.NDArray[np.float64] = np.zeros((dimension, dimension))
    for start in range(0, len(train), _ROWS):
        part = values[train[start : start + _ROWS]] - shift
        total += part.sum(axis=0, dtype=np.float64)
        gram += (part.T @ part).astype(np.float64)
    offset: npt.NDArray[np.float64] = total / len(train)
    gram -= np.outer(total, offset)
    mean = shift.astype(np.float64) + offset
    return build_pca(1, mean, gram / (len(train) - 1), n_components)


def project_features(values: npt.NDArray[np.float32], pca: PCA) -> npt.NDArray[np.float32]:
    """Project features float32 ``(N, F)`` on the components, float32 ``(N, k)``."""
    centered: npt.NDArray[np.float32] = values - pca.mean
    projected: npt.NDArray[np.float32] = centered @ pca.components.T
    return projected
