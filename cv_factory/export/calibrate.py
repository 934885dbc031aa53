"""Temperature scaling: calibration of probabilities by one number, fitted on validation images.

C. Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2. Dividing logits by T is
the same as raising probabilities to 1/T and normalizing them again, so it works for any model.

Where the validation images have no error, the likelihood alone would make every answer certain. So
half an error is added to them (as in Jeffreys' prior of a share), and a temperature is used only
where it holds up on validation images that it was not fitted on.
``benchmarks/calibration.py`` compares this with its alternatives.
"""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cv_factory.evaluation import metric_functions as m
from cv_factory.inference.predictor import CalibrationCheck

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
#: Lower bound of probabilities before their logarithm: a small normal float32.
MIN_PROBABILITY = 1e-37
#: Weight, in images, of the assumed error: the mean of all images as if each were misclassified.
ASSUMED_ERRORS = 0.5
_TEMPERATURE_BOUNDS = (0.05, 20.0)
_N_FOLDS = 5
_N_BINS = 15
_log = logging.getLogger(__name__)


def calibrate(probabilities: Floats, labels: Labels) -> tuple[float, CalibrationCheck]:
    """Return the fitted temperature, or 1 if it does not hold up, and how it held up.

    Each fold of the validation images is calibrated with the temperature of the other folds. If log
    loss or calibration error of all of them grows by that, the temperature is 1. The check's
    warning is logged.

    Args:
        probabilities: Of the uncalibrated model, float32 ``(N, K)``.
        labels: True classes, int64 ``(N,)``.
    """
    before = _Scores.of(probabilities, labels)
    after = _Scores.of(_cross_calibrate(probabilities, labels), labels)
    n_errors = int((probabilities.argmax(axis=1) != labels).sum())
    fitted = fit_temperature(probabilities, labels)
    check = CalibrationCheck(
        n_images=len(labels),
        n_errors=n_errors,
        log_loss=(before.log_loss, after.log_loss),
        calibration_error=(before.calibration_error, after.calibration_error),
        warning=_describe_weakness(fitted, before, after, len(labels), n_errors),
    )
    if check.warning:
        _log.warning(check.warning)
    is_sound = not _is_at_bound(fitted) and after.is_no_worse_than(before)
    return fitted if is_sound else 1.0, check


def fit_temperature(
    probabilities: Floats, labels: Labels, assumed_errors: float = ASSUMED_ERRORS
) -> float:
    """Return the temperature that maximizes the likelihood of labels and assumed errors.

    Args:
        probabilities: Of the uncalibrated model, float32 ``(N, K)``.
        labels: True classes, int64 ``(N,)``.
        assumed_errors: Images added to the N whose true class is the second most probable one.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    log = np.log(np.maximum(probabilities.astype(np.float64), MIN_PROBABILITY))
    rows, second = np.arange(len(labels)), np.argsort(probabilities, axis=1)[:, -2]

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(log / np.exp(log_temperature), axis=1)
        assumed = assumed_errors * scaled[rows, second].mean()
        return float(-scaled[rows, labels].sum() - assumed)

    result = minimize_scalar(
        loss, bounds=tuple(np.log(_TEMPERATURE_BOUNDS)), method="bounded", options={"xatol": 1e-6}
    )
    # Rounded, so that the last bits of the search do not change the predictor.
    return round(float(np.exp(result.x)), 4)


def apply_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Return calibrated probabilities, float32 ``(N, K)``."""
    from scipy.special import softmax

    log = np.log(np.maximum(probabilities.astype(np.float64), MIN_PROBABILITY))
    calibrated: Floats = softmax(log / temperature, axis=1).astype(np.float32)
    return calibrated


@dataclass(frozen=True)
class _Scores:
    """Log loss and expected calibration error, rounded as the temperature is."""

    log_loss: float
    calibration_error: float

    @classmethod
    def of(cls, probabilities: Floats, labels: Labels) -> "_Scores":
        error = m.expected_calibration_error(labels, probabilities, _N_BINS)
        return cls(round(m.log_loss(labels, probabilities), 6), round(error, 6))

    def is_no_worse_than(self, other: "_Scores") -> bool:
        return self.log_loss <= other.log_loss and self.calibration_error <= other.calibration_error


def _cross_calibrate(probabilities: Floats, labels: Labels) -> Floats:
    """Calibrate each fold with the temperature fitted on the others, float32 ``(N, K)``."""
    folds = np.random.default_rng(0).permutation(len(labels)) % _N_FOLDS
    calibrated = np.empty_like(probabilities)
    for fold in range(_N_FOLDS):
        inside, outside = folds == fold, folds != fold
        temperature = fit_temperature(probabilities[outside], labels[outside])
        calibrated[inside] = apply_temperature(probabilities[inside], temperature)
    return calibrated


def _is_at_bound(temperature: float) -> bool:
    low, high = _TEMPERATURE_BOUNDS
    return not 1.01 * low < temperature < 0.99 * high


def _describe_weakness(
    temperature: float, before: _Scores, after: _Scores, n_images: int, n_errors: int
) -> str:
    """Return a warning about a fit that is no evidence or is not used; empty for a sound one."""
    if _is_at_bound(temperature):
        return (
            f"The calibration ended at its bound, temperature {temperature:g}, and is not used: "
            "check the labels of the validation images."
        )
    if not after.is_no_worse_than(before):
        return (
            f"The calibration, temperature {temperature:g}, is not used: on held-out validation "
            f"images log loss goes from {before.log_loss:.4f} to {after.log_loss:.4f} and "
            f"calibration error from {before.calibration_error:.4f} to "
            f"{after.calibration_error:.4f}. The probabilities stay as the model gives them."
        )
    if n_errors == 0:
        return (
            f"None of the {n_images} validation images is misclassified, so they do not show how "
            f"often a confident answer is wrong: temperature {temperature:g} rests on half an "
            "assumed error. Raise split.validation."
        )
    return ""
