"""Difference of confidences: the accuracy falls by as much as the mean confidence.

D. Guillory et al., Predicting with Confidence on Unseen Distributions, 2021.
"""

import numpy as np
import numpy.typing as npt

from cv_factory.inference.reference import LabeledOutputs


def estimate(validation: LabeledOutputs, probabilities: npt.NDArray[np.float32]) -> float:
    """Return the accuracy of the labelled images, moved by the change of the mean confidence."""
    change = probabilities.max(axis=1).mean(dtype=np.float64) - validation.confidence.mean(
        dtype=np.float64
    )
    return float(np.clip(validation.accuracy + change, 0.0, 1.0))
