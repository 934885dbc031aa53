"""Multinomial logistic regression by L-BFGS, to the same solution as scikit-learn's.

The objective is C times the sum of the weighted log losses, plus half the sum of the squared
weights; intercepts are not penalized. Two classes share one vector of weights, as in scikit-learn.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from cv_factory.cpu import fitting_threads

_log = logging.getLogger(__name__)

#: Largest entry of the mean log loss's gradient at which a fit ends: probabilities are within 1e-6
#: of the solution's by then, or accurate enough to compare values of C.
TOLERANCE, ROUGH_TOLERANCE = 3e-9, 1e-4
#: Steps and gradients that L-BFGS keeps.
_HISTORY = 20
#: Rows a thread works on at a time. Sums are in their order, whatever the number of threads.
_BLOCK = 1024
#: Values of features that are held in float64; of more of them, all in float32.
_MAX_FLOAT64 = 1 << 26


@dataclass(frozen=True)
class SoftmaxRegression:
    """A fitted multinomial logistic regression.

    Attributes:
        weights: float64 ``(k, K)``.
        intercepts: float64 ``(K,)``.
        n_iterations: Steps of L-BFGS.
    """

    weights: npt.NDArray[np.float64]
    intercepts: npt.NDArray[np.float64]
    n_iterations: int

    def predict_proba(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Map features ``(N, k)`` to probabilities ``(N, K)``."""
        scores = features @ self.weights + self.intercepts
        probabilities: npt.NDArray[np.float64] = softmax(scores, axis=1)
        return probabilities


class SoftmaxRegressionProblem:
    """Features, labels and weights of examples, to be fitted with one C or several."""

    def __init__(
        self,
        features: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        n_classes: int,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Center the features, which changes no solution but the speed.

        Args:
            features: ``(N, k)``.
            labels: ``(N,)`` from 0 to K-1.
            n_classes: K, at least 2; one without examples gets a probability near 0.
            weights: How much each example counts, ``(N,)``; None where all count 1.
        """
        self._mean = features.mean(axis=0, dtype=np.float64)
        dtype = np.float64 if features.size <= _MAX_FLOAT64 else np.float32
        self._features = features - self._mean.astype(dtype)
        self._labels = labels
        self._weights = np.ones(len(labels)) if weights is None else weights
        self._n_classes = n_classes
        self._sums_of_squares = np.einsum("nk,nk->k", self._features, self._features)

    def fit(
        self,
        C: float,
        max_iter: int,
        tolerance: float = TOLERANCE,
        start: SoftmaxRegression | None = None,
    ) -> SoftmaxRegression:
        """Minimize the objective, from zero or from the solution of another C.

        D. C. Liu, J. Nocedal, On the Limited Memory BFGS Method, 1989. Weights are scaled by the
        root of a bound on the Hessian's diagonal, as a preconditioner.

        Args:
            C: Inverse of the L2 penalty.
            max_iter: Steps at most.
            tolerance: Largest entry of the gradient, as of the mean log loss, at which it ends.
            start: Where to begin.
        """
        C = C / 2 if self._n_classes == 2 else C
        scale = np.sqrt(1 + C / 4 * self._sums_of_squares)[:, None]
        initial = np.zeros((len(scale) + 1, self._n_classes))
        if start is not None:
            initial[:-1] = start.weights * scale
            initial[-1] = start.intercepts + self._mean @ start.weights
        options = {"maxiter": max_iter, "maxfun": 2 * max_iter, "maxcor": _HISTORY}
        threads = fitting_threads()
        # One thread of BLAS for each of ours: its own wait for each other in a busy loop.
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
            result = minimize(
                lambda x: self._objective(x.reshape(initial.shape), C, scale, pool),
                initial.ravel(),
                jac=True,
                method="L-BFGS-B",
                options={**options, "gtol": tolerance * C * self._weights.sum(), "ftol": 0.0},
            )
        if result.status == 1:
            _log.warning(
                "The logistic regression did not converge in %d steps: raise model.max_iter, or "
                "lower model.C.",
                max_iter,
            )
        solution = result.x.reshape(initial.shape)
        weights = solution[:-1] / scale
        return SoftmaxRegression(weights, solution[-1] - self._mean @ weights, int(result.nit))

    def _objective(
        self,
        parameters: npt.NDArray[np.float64],
        C: float,
        scale: npt.NDArray[np.float64],
        pool: ThreadPoolExecutor,
    ) -> tuple[float, npt.NDArray[np.float64]]:
        """Return the objective and its gradient, flat, by scaled weights and intercepts."""
        weights, intercepts = parameters[:-1] / scale, parameters[-1]
        gradient = np.zeros_like(parameters)
        loss = 0.0
        blocks = range(0, len(self._labels), _BLOCK)
        for part in pool.map(lambda row: self._block(row, weights, intercepts), blocks):
            loss += part[0]
            gradient[:-1] += part[1]
            gradient[-1] += part[2]
        gradient *= C
        gradient[:-1] = (gradient[:-1] + weights) / scale
        return C * loss + 0.5 * float(np.vdot(weights, weights)), gradient.ravel()

    def _block(
        self, row: int, weights: npt.NDArray[np.float64], intercepts: npt.NDArray[np.float64]
    ) -> tuple[float, npt.NDArray[np.floating], npt.NDArray[np.floating]]:
        """Return loss and gradients by weights and intercepts of the examples from a row on."""
        rows = slice(row, row + _BLOCK)
        features, labels = self._features[rows], self._labels[rows]
        scores = features @ weights.astype(features.dtype, copy=False) + intercepts
        scores -= scores.max(axis=1, keepdims=True)
        chosen = np.arange(len(labels)), labels
        loss = -scores[chosen]
        np.exp(scores, out=scores)
        sums = scores.sum(axis=1, keepdims=True)
        loss += np.log(sums[:, 0])
        scores /= sums
        scores[chosen] -= 1
        scores *= self._weights[rows, None]
        by_weights = features.T @ scores.astype(features.dtype, copy=False)
        return float(loss @ self._weights[rows]), by_weights, scores.sum(axis=0)
