"""Label shift: shares of the classes in the field, estimated without labels.

Both methods assume that images of a class look as before, and only their shares changed. EM needs
calibrated probabilities; BBSE needs only a predictor whose confusion matrix can be inverted.
"""

import numpy as np
import numpy.typing as npt

from cv_factory.inference.reference import LabeledOutputs

Shares = npt.NDArray[np.float64]
_MAX_ITERATIONS, _TOLERANCE = 1000, 1e-8


def estimate_shares_by_em(
    reference: LabeledOutputs, probabilities: npt.NDArray[np.float32]
) -> Shares:
    """Estimate the classes' shares by expectation maximization; they maximize the likelihood.

    M. Saerens et al., Adjusting the Outputs of a Classifier to New a Priori Probabilities: A Simple
    Procedure, 2002.

    Args:
        reference: Labelled outputs for images with the shares that the predictor was trained on.
        probabilities: Unlabelled ones, float32 ``(N, K)``, N at least 1.

    Returns:
        Float64 ``(K,)``, of sum 1; 0 for a class without a labelled image.
    """
    before = count_shares(reference.labels, probabilities.shape[1])
    ratios = np.divide(
        probabilities, before, out=np.zeros(probabilities.shape), where=before > 0
    )  # p(x | class), up to a factor of each row
    shares = before
    for _ in range(_MAX_ITERATIONS):
        posteriors = ratios * shares
        totals = posteriors.sum(axis=1, keepdims=True)
        updated = (posteriors / np.maximum(totals, np.finfo(np.float64).tiny)).mean(axis=0)
        if not updated.any():  # all images are of classes without a labelled one
            return before
        updated /= updated.sum()
        change = np.abs(updated - shares).max()
        shares = updated
        if change < _TOLERANCE:
            break
    return shares


def estimate_shares_by_bbse(
    reference: LabeledOutputs, probabilities: npt.NDArray[np.float32]
) -> Shares:
    """Estimate the classes' shares from those of the predicted classes, and the confusion matrix.

    Z. Lipton et al., Detecting and Correcting for Label Shift with Black Box Predictors, 2018.
    Arguments and result as for ``estimate_shares_by_em``; negative shares become 0.
    """
    n_classes = probabilities.shape[1]
    joint = np.zeros((n_classes, n_classes))  # predicted class, true class
    np.add.at(joint, (reference.predicted, reference.labels), 1.0 / len(reference))
    predicted = count_shares(probabilities.argmax(axis=1), n_classes)
    weights = np.linalg.lstsq(joint, predicted, rcond=None)[0]
    shares: Shares = np.maximum(weights, 0.0) * joint.sum(axis=0)
    if not shares.any():  # the predicted classes are none that the reference has
        return count_shares(reference.labels, n_classes)
    shares /= shares.sum()
    return shares


def count_shares(classes: npt.NDArray[np.int64], n_classes: int) -> Shares:
    """Return the share of each class, float64 ``(K,)``, among int64 ``(N,)``."""
    shares: Shares = np.bincount(classes, minlength=n_classes) / max(1, len(classes))
    return shares
