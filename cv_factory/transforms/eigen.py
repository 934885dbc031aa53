"""Leading eigenvectors of a covariance matrix, to full precision and with a deterministic sign."""

import numpy as np
import numpy.typing as npt

#: From this size on, and this many times as many dimensions as eigenvectors, block Krylov pays.
_LARGE, _SPARSE = 1024, 8
_OVERSAMPLING = 16
_MOST_BLOCKS = 10
#: Residual, relative to its eigenvalue, from which on an eigenpair counts as found. The error of
#: the eigenvalue is at most the residual, and in practice about its square.
_TOLERANCE = 1e-7


def leading_eigenvectors(
    covariance: npt.NDArray[np.float64], k: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the ``k`` largest eigenvalues, descending, and their eigenvectors as rows.

    Args:
        covariance: float64 ``(D, D)``, symmetric and positive semi-definite.
        k: How many.

    Returns:
        Eigenvalues float64 ``(k,)``, not below 0, and orthonormal rows float64 ``(k, D)``; the
        entry of largest magnitude in each row is positive.
    """
    is_large = len(covariance) >= max(_LARGE, _SPARSE * k)
    found = _block_krylov(covariance, k) if is_large else None
    values, vectors = found or _dense(covariance, k)
    return np.maximum(values, 0.0), _fix_signs(np.ascontiguousarray(vectors.T))


_Pairs = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def _dense(covariance: npt.NDArray[np.float64], k: int) -> _Pairs:
    from scipy.linalg import eigh

    dimension = len(covariance)
    values, vectors = eigh(covariance, subset_by_index=[dimension - k, dimension - 1])
    return values[::-1], vectors[:, ::-1]


def _block_krylov(covariance: npt.NDArray[np.float64], k: int) -> _Pairs | None:
    """Find eigenpairs in a growing Krylov space, or return None where it converges too slowly.

    Matrix products with blocks instead of a tridiagonal reduction, which is bound by memory:
    G. H. Golub and R. Underwood, The block Lanczos method for computing eigenvalues, 1977, with
    full reorthogonalization, from a seeded random block.
    """
    from scipy.linalg import eigh, qr

    dimension, width = len(covariance), k + _OVERSAMPLING
    block = np.random.default_rng(0).standard_normal((dimension, width))
    block = qr(block, mode="economic")[0]
    basis, images = np.empty((dimension, 0)), np.empty((dimension, 0))
    for _ in range(min(_MOST_BLOCKS, dimension // width)):
        image = covariance @ block
        basis, images = np.hstack([basis, block]), np.hstack([images, image])
        values, small = eigh(basis.T @ images)
        values, small = values[::-1][:k], small[:, ::-1][:, :k]
        vectors = basis @ small
        residuals = np.linalg.norm(images @ small - vectors * values, axis=0)
        if (residuals <= _TOLERANCE * np.abs(values)).all():
            return values, vectors
        for _ in range(2):  # once is not enough to be orthogonal to rounding
            image = image - basis @ (basis.T @ image)
        block = qr(image, mode="economic")[0]
    return None


def _fix_signs(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Flip each row so that its entry of largest magnitude is positive."""
    largest = np.abs(vectors).argmax(axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    return vectors * np.where(signs == 0, 1.0, signs)[:, None]
