"""Leading eigenvectors of a covariance matrix, to full precision and with a deterministic sign."""

import numpy as np
import numpy.typing as npt

#: From this size on, and this many times as many dimensions as eigenvectors, block Krylov pays.
_LARGE, _SPARSE = 1024, 8
_OVERSAMPLING = 16
_MOST_BLOCKS = 10
#: Blocks from which on it is asked whether the eigenpairs are found: before, they never are.
_FIRST_LOOK = 4
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
    eigenpairs = _block_krylov(covariance, k) if is_large else None
    values, vectors = eigenpairs or _dense(covariance, k)
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
    n_blocks = min(_MOST_BLOCKS, dimension // width)
    block = np.random.default_rng(0).standard_normal((dimension, width))
    block = qr(block, mode="economic")[0]
    basis = np.empty((dimension, n_blocks * width), order="F")
    images, small = np.empty_like(basis), np.empty((n_blocks * width,) * 2)
    for begin, end in ((number * width, (number + 1) * width) for number in range(n_blocks)):
        image = covariance @ block
        basis[:, begin:end], images[:, begin:end] = block, image
        columns = basis[:, :end]
        inside = columns.T @ image
        small[:end, begin:end], small[begin:end, :end] = inside, inside.T
        if end >= _FIRST_LOOK * width:
            values, coefficients = eigh(small[:end, :end], subset_by_index=[end - k, end - 1])
            vectors = columns @ coefficients
            residuals = np.linalg.norm(images[:, :end] @ coefficients - vectors * values, axis=0)
            if (residuals <= _TOLERANCE * np.abs(values)).all():
                return values[::-1], vectors[:, ::-1]
        image -= columns @ inside
        image -= columns @ (columns.T @ image)  # once is not enough to be orthogonal to rounding
        block = qr(image, mode="economic")[0]
    return None


def _fix_signs(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Flip each row so that its entry of largest magnitude is positive."""
    largest = np.abs(vectors).argmax(axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    return vectors * np.where(signs == 0, 1.0, signs)[:, None]
