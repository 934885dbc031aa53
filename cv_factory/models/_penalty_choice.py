"""Choice of a logistic regression's penalty by cross-validation on the training images."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from cv_factory.data.folds import assign_folds
from cv_factory.features.softmax_regression import (
    ROUGH_TOLERANCE,
    SoftmaxRegression,
    SoftmaxRegressionProblem,
)
from cv_factory.models import Examples

#: Values of C that are compared, from the strongest penalty on.
C_GRID = tuple(float(f"{digit}e{exponent}") for exponent in range(-4, 3) for digit in (1, 3))
N_FOLDS = 3
_LOG_TEMPERATURES = (np.log(0.05), np.log(20.0))
_MIN_PROBABILITY = 1e-37

_Floats = npt.NDArray[np.float64]


def choose_penalty(
    examples: Examples, groups: npt.NDArray[np.int64], max_iter: int
) -> tuple[float, float]:
    """Return the chosen C, and the log loss of the held-out folds with it.

    Compared is the log loss after a temperature of each C's own: a strong penalty makes cautious
    probabilities, which calibration repairs. Taken is the strongest penalty whose loss is within
    one standard error of the least (L. Breiman et al., Classification and Regression Trees, 1984).
    Values of C are tried in ascending order until the loss rises.

    Args:
        examples: At least two.
        groups: Leakage group of each example, int64 ``(N,)``: a group is in one fold. Where there
            are fewer groups than folds, examples are divided one by one.
        max_iter: Steps of L-BFGS, at most.
    """
    losses: list[_Floats] = []
    for probabilities in _predict_held_out(examples, groups, max_iter):
        losses.append(_calibrated_losses(probabilities, examples))
        if len(losses) > 1 and losses[-1].mean() > losses[-2].mean():
            break
    best = losses[int(np.argmin([loss.mean() for loss in losses]))]
    for C, loss in zip(C_GRID, losses, strict=False):
        difference = loss - best
        if difference.mean() <= difference.std() / np.sqrt(len(best)):
            return C, float(loss.mean())
    raise AssertionError("the best C is within a standard error of itself")


def _predict_held_out(
    examples: Examples, groups: npt.NDArray[np.int64], max_iter: int
) -> Iterator[_Floats]:
    """Yield, for each C, every example's probabilities by a model of the other folds."""
    features, labels, weights = examples.features, examples.labels, examples.weights
    n_classes = int(labels.max()) + 1
    units = groups if len(np.unique(groups)) >= N_FOLDS else np.arange(len(labels))
    folds = assign_folds(labels, units, N_FOLDS)
    problems = {
        fold: SoftmaxRegressionProblem(
            features[folds != fold],
            labels[folds != fold],
            n_classes,
            None if weights is None else weights[folds != fold],
        )
        for fold in np.unique(folds)
    }
    solutions: dict[int, SoftmaxRegression] = {}
    for C in C_GRID:
        probabilities = np.empty((len(labels), n_classes))
        for fold, problem in problems.items():
            start = solutions.get(fold)
            solutions[fold] = problem.fit(C, max_iter, ROUGH_TOLERANCE, start)
            probabilities[folds == fold] = solutions[fold].predict_proba(features[folds == fold])
        yield probabilities


def _calibrated_losses(probabilities: _Floats, examples: Examples) -> _Floats:
    """Return each example's weighted log loss, at the temperature that makes the mean least."""
    scores = np.log(np.maximum(probabilities, _MIN_PROBABILITY))
    chosen = np.arange(len(scores)), examples.labels
    weights = 1.0 if examples.weights is None else examples.weights

    def losses(log_temperature: float) -> _Floats:
        scaled: _Floats = log_softmax(scores / np.exp(log_temperature), axis=1)
        return -scaled[chosen] * weights

    fitted = minimize_scalar(
        lambda t: float(losses(t).mean()), bounds=_LOG_TEMPERATURES, method="bounded"
    )
    return losses(float(fitted.x))
