"""Confident learning: which labels are doubtful, by probabilities of models that never saw them.

C. Northcutt, L. Jiang, I. Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels,
Journal of Artificial Intelligence Research 70, 2021. Of its ways to prune this is the one by class:
as many labels of a class as the confident joint counts as wrong, those of lowest self-confidence.
On CIFAR-10 that ranks wrong labels better than the margin (``benchmarks.label_issues``).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Probabilities = npt.NDArray[np.floating]
_Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelNoise:
    """What is wrong with the labels of each class.

    Attributes:
        thresholds: float64 ``(C,)``, mean probability of a class among the images labelled so; 1
            for a class without images, which no image then is confidently of.
        joint: float64 ``(C, C)``, number of images by given label (row) and true label (column).
        cutoffs: float64 ``(C,)``, self-confidence of the last label of a class that is pruned, in
            the order of self-confidence; -1 where none is.
    """

    thresholds: npt.NDArray[np.float64]
    joint: npt.NDArray[np.float64]
    cutoffs: npt.NDArray[np.float64]


def estimate_label_noise(probabilities: _Probabilities, labels: _Labels) -> LabelNoise:
    """Count the confident joint, calibrate it to the number of labels, and prune by class.

    Args:
        probabilities: ``(N, C)``, of models that were not fitted on the image.
        labels: int64 ``(N,)``, the given labels, from 0 to C - 1.
    """
    n_classes = probabilities.shape[1]
    confidence = compute_self_confidence(probabilities, labels)
    counts = np.bincount(labels, minlength=n_classes)
    sums = np.bincount(labels, confidence, minlength=n_classes)
    thresholds = np.divide(sums, counts, out=np.ones(n_classes), where=counts > 0)
    confident = _find_confident_classes(probabilities, thresholds)
    is_confident = confident >= 0
    joint = np.zeros((n_classes, n_classes))
    np.add.at(joint, (labels[is_confident], confident[is_confident]), 1.0)
    # Without a confident image of its class, a label counts as right.
    np.fill_diagonal(joint, np.where(joint.any(axis=1), np.diag(joint), 1.0))
    joint *= (counts / joint.sum(axis=1))[:, None]
    cutoffs = np.full(n_classes, -1.0)
    for label in range(n_classes):
        if n_wrong := round(float(counts[label] - joint[label, label])):
            cutoffs[label] = np.sort(confidence[labels == label])[n_wrong - 1]
    return LabelNoise(thresholds, joint, cutoffs)


def find_suspicious_labels(
    probabilities: _Probabilities, labels: _Labels, noise: LabelNoise
) -> npt.NDArray[np.int64]:
    """Return the positions of doubtful labels, the most doubtful first.

    Those are pruned whose self-confidence is not above the cutoff of their class, and those of
    images that are confidently of another class. The most probable class is never doubtful.

    Args:
        probabilities: As in ``estimate_label_noise``.
        labels: int64 ``(N,)``, the given labels.
        noise: Of these images, or of others of the same source.
    """
    confidence = compute_self_confidence(probabilities, labels)
    confident = _find_confident_classes(probabilities, noise.thresholds)
    is_doubtful = (confidence <= noise.cutoffs[labels]) | ((confident >= 0) & (confident != labels))
    positions = np.flatnonzero(is_doubtful & (probabilities.argmax(axis=1) != labels))
    suspicious: npt.NDArray[np.int64] = positions[np.argsort(confidence[positions], kind="stable")]
    return suspicious


def compute_self_confidence(
    probabilities: _Probabilities, labels: _Labels
) -> npt.NDArray[np.float64]:
    """Return the probability of each given label, float64 ``(N,)``."""
    return probabilities[np.arange(len(labels)), labels].astype(np.float64)


def _find_confident_classes(
    probabilities: _Probabilities, thresholds: npt.NDArray[np.float64]
) -> _Labels:
    """Return the most probable of the classes that an image is confidently of, -1 for none."""
    is_above = probabilities >= thresholds
    best = np.where(is_above, probabilities, -1.0).argmax(axis=1)
    confident: _Labels = np.where(is_above.any(axis=1), best, -1)
    return confident
