"""Leading eigenvectors of a covariance matrix, to full precision and with a deterministic sign."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from cv_factory.cpu import fitting_threads

#: From this size on, and this many times as many dimensions as eigenvectors, block Krylov pays.
_LARGE, _SPARSE = 1024, 8
_OVERSAMPLING = 16
_MOST_BLOCKS = 10
#: Blocks from which on it is asked whether the eigenpairs are found: before, they never are.
_FIRST_LOOK = 4
#: Residual, relative to its eigenvalue, from which on an eigenpair counts as found. The error of
#: the eigenvalue is at most the residual, and in practice about its square.
_TOLERANCE = 1e-7
_STRIPS = 4


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
    from threadpoolctl import threadpool_limits

    is_large = len(covariance) >= max(_LARGE, _SPARSE * k)
    # Threads of OpenBLAS wait by spinning: beside a busy process two of them take 10 to 100 times
    # as long as one.
    with threadpool_limits(1, "blas"):
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
    small = np.empty((n_blocks * width,) * 2)
    for begin, end in ((number * width, (number + 1) * width) for number in range(n_blocks)):
        image = _multiply(covariance, block)
        basis[:, begin:end] = block
        columns = basis[:, :end]
        inside = columns.T @ image
        small[:end, begin:end], small[begin:end, :end] = inside, inside.T
        block, coupling = qr(image - columns @ inside, mode="economic")
        # Once is not enough to be orthogonal to rounding, least where little of the image was left.
        block, again = qr(block - columns @ (columns.T @ block), mode="economic")
        if end >= _FIRST_LOOK * width:
            values, coefficients = eigh(small[:end, :end], subset_by_index=[end - k, end - 1])
            # Only the newest block's images leave the space.
            residuals = np.linalg.norm(again @ coupling @ coefficients[begin:], axis=0)
            if (residuals <= _TOLERANCE * np.abs(values)).all():
                return values[::-1], (columns @ coefficients)[:, ::-1]
    return None


def _multiply(
    matrix: npt.NDArray[np.float64], block: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Multiply in strips, a thread each; their number is fixed, for it rounds."""
    with ThreadPoolExecutor(fitting_threads(), thread_name_prefix="eigen") as pool:
        strips = np.array_split(matrix, _STRIPS)
        return np.concatenate(list(pool.map(lambda strip: strip @ block, strips)))


def _fix_signs(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Flip each row so that its entry of largest magnitude is positive."""
    largest = np.abs(vectors).argmax(axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    return vectors * np.where(signs == 0, 1.0, signs)[:, None]
