"""Temperature scaling: calibration of probabilities by one number, fitted on validation images.

C. Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2. Dividing logits by T is
the same as raising probabilities to 1/T and normalizing them again, so it works for any model.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
#: Lower bound of probabilities before their logarithm: a small normal float32.
MIN_PROBABILITY = 1e-37
_TEMPERATURE_BOUNDS = (0.05, 20.0)


def fit_temperature(probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Return the temperature that maximizes the likelihood of the labels.

    Args:
        probabilities: Of the uncalibrated model, float32 ``(N, K)``.
        labels: True classes, int64 ``(N,)``.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    log = np.log(np.maximum(probabilities.astype(np.float64), MIN_PROBABILITY))
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(log / np.exp(log_temperature), axis=1)
        return float(-scaled[rows, labels].mean())

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
