"""Outputs of a made-up predictor for tests of monitoring."""

import numpy as np

from cv_factory.inference.reference import STATISTICS, LabeledOutputs


def calibrated_outputs(n: int, sharpness: float = 1.0, seed: int = 0) -> LabeledOutputs:
    """Return outputs of 3 classes whose labels are drawn from their probabilities.

    Args:
        n: Number of images.
        sharpness: Scale of the logits: below 1 the images are harder.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    logits = sharpness * 3.0 * rng.standard_normal((n, 3))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    labels = (rng.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    features = rng.standard_normal((n, 2)).astype(np.float32)
    statistics = np.full((n, len(STATISTICS)), 0.5, np.float32)
    return LabeledOutputs(labels, probabilities.astype(np.float32), features, statistics)
