"""Average thresholded confidence: the share of images above the threshold that errors set.

S. Garg et al., Leveraging Unlabeled Data to Predict Out-of-Distribution Performance, 2022.
"""

import numpy as np
import numpy.typing as npt

from cv_factory.inference.reference import LabeledOutputs


def estimate(validation: LabeledOutputs, probabilities: npt.NDArray[np.float32]) -> float:
    """Return the share of images at or above a confidence.

    Below it lie as many of the labelled images as are misclassified.
    """
    n_errors = int((validation.predicted != validation.labels).sum())
    confidence = np.append(np.sort(validation.confidence), np.inf)
    return float((probabilities.max(axis=1) >= confidence[n_errors]).mean())
