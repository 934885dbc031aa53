"""The space in which images are compared: principal components of a backbone's features.

Some hundred components keep what tells images apart, and make comparisons of all images with all
affordable.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cv_factory.transforms.eigen import leading_eigenvectors

N_COMPONENTS = 256
#: Images that components are fitted on, spread over all, and rows projected at once.
_MAX_FITTED, _ROWS = 20_000, 4096


def reduce_features(
    values: npt.NDArray[np.float32], fitted_on: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Center features and project them on their leading components.

    Args:
        values: float32 ``(N, F)``; may be memory-mapped, and larger than memory.
        fitted_on: Rows that mean and components are fitted on.

    Returns:
        float32 ``(N, K)`` with K at most 256, scaled so that their total variance is 1.
    """
    rows = fitted_on[:: -(-len(fitted_on) // _MAX_FITTED)]
    count, dimension = len(rows), values.shape[1]
    total, gram = np.zeros(dimension), np.zeros((dimension, dimension))
    # The products are of differences from one row: of large equal features, nothing would be left.
    origin = np.asarray(values[rows[0]])
    for chunk in _chunks(rows):
        part = values[chunk] - origin
        total += part.sum(axis=0, dtype=np.float64)
        gram += part.T @ part
    offset = total / count
    covariance = gram / count - np.outer(offset, offset)
    eigenvalues, components = leading_eigenvectors(covariance, min(N_COMPONENTS, dimension))
    components = components[eigenvalues > 1e-9 * max(eigenvalues[0], 1e-12)]
    scale = 1.0 / np.sqrt(max(float(np.trace(covariance)), 1e-12))
    mean, projection = (origin + offset).astype(np.float32), (components * scale).T
    reduced = np.empty((len(values), len(components)), np.float32)
    for chunk in _chunks(np.arange(len(values))):
        reduced[chunk] = (values[chunk] - mean) @ projection.astype(np.float32)
    return reduced


def normalize_rows(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale rows to length 1, so that their product is the cosine; rows of zeros stay."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = values / np.maximum(lengths, 1e-12)
    return unit


def _chunks(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS]
