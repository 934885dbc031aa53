"""Outliers: images far from their nearest neighbors in a backbone's features.

The mean distance to the k nearest: S. Ramaswamy, R. Rastogi, K. Shim, Efficient Algorithms for
Mining Outliers from Large Data Sets, SIGMOD 2000; far are those beyond the upper fence of J. W.
Tukey, Exploratory Data Analysis, 1977. The features are compared as they are: centered, or by their
principal components, drawings, noise and blank pages among photos look like one more photo.
"""

import numpy as np
import numpy.typing as npt

from cv_factory.curation.feature_space import normalize_rows

_N_NEIGHBORS = 10
#: Images that distances are measured to, spread over all, and those compared with them at once.
_MAX_REFERENCES, _ROWS = 10_000, 2048
#: Interquartile ranges above the upper quartile.
_FENCE = 1.5

_Floats = npt.NDArray[np.float32]
_Indices = npt.NDArray[np.int64]


def measure_distances(values: _Floats, references: _Indices, groups: _Indices) -> _Floats:
    """Return the mean cosine distance of each image to its 10 nearest references, ``(N,)``.

    Args:
        values: Features ``(N, F)``; may be memory-mapped.
        references: Rows that distances are measured to; 10,000 of them, where there are more.
        groups: Number of each image's leakage group: an image is no neighbor of its own group.

    Returns:
        float32 from 0 to 2; an image with fewer than one neighbor has 0.
    """
    rows = references[:: -(-len(references) // _MAX_REFERENCES)]
    distances = np.zeros(len(values), np.float32)
    k = min(_N_NEIGHBORS, len(rows) - 1)
    if k < 1:
        return distances
    others = normalize_rows(values[rows]).T
    for start in range(0, len(values), _ROWS):
        part = slice(start, start + _ROWS)
        cosine = normalize_rows(values[part]) @ others
        cosine[groups[part, None] == groups[rows]] = -1.0
        nearest = np.partition(cosine, -k, axis=1)[:, -k:]
        distances[part] = 1.0 - nearest.mean(axis=1)
    return distances


def find_outliers(distances: _Floats, references: _Indices) -> _Indices:
    """Return the images whose distance is beyond the fence of the references', farthest first."""
    low, high = np.quantile(distances[references], (0.25, 0.75))
    far = np.flatnonzero(distances > high + _FENCE * (high - low))
    outliers: _Indices = far[np.argsort(-distances[far], kind="stable")]
    return outliers
