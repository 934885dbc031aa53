"""Weights of classes with few images."""

import numpy as np
import numpy.typing as npt

from cv_factory.config.train import TrainConfig


def class_weights(
    labels: npt.NDArray[np.int64], n_classes: int, config: TrainConfig
) -> npt.NDArray[np.float32] | None:
    """Return the weight of each class, float32 ``(K,)``, or None for equal weights.

    Balanced weights are ``N / (K n_k)``, as in scikit-learn; a class without images gets 0.
    """
    if config.class_weights == "none":
        return None
    counts = np.bincount(labels, minlength=n_classes)
    weights = len(labels) / (n_classes * np.maximum(counts, 1)) * (counts > 0)
    return weights.astype(np.float32)
