"""Confidence-based performance estimation: the mean calibrated confidence.

W. Kuberski et al., NannyML (CBPE); J. Kivimäki et al., Performance Estimation in Binary
Classification Using Calibrated Confidence, 2025. The confidence is calibrated by isotonic
regression on the labelled images.
"""

import numpy as np
import numpy.typing as npt

from cv_factory.inference.reference import LabeledOutputs


def estimate(validation: LabeledOutputs, probabilities: npt.NDArray[np.float32]) -> float:
    """Return the mean share of right answers that each confidence had on the labelled images."""
    from scipy.optimize import isotonic_regression

    # Equal confidences are one point with the mean of their answers.
    confidence, group = np.unique(validation.confidence, return_inverse=True)
    counts = np.bincount(group)
    shares = np.bincount(group, validation.predicted == validation.labels) / counts
    calibrated = isotonic_regression(shares, weights=counts).x
    return float(np.interp(probabilities.max(axis=1), confidence, calibrated).mean())
