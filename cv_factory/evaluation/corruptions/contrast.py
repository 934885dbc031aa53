"""Loss of contrast, as in fog."""

import numpy as np

from cv_factory.evaluation.corruptions import Images, to_pixels

STRENGTHS = (0.6, 0.4, 0.2)


def corrupt(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Draw every pixel towards its image's mean until ``strength`` of the contrast is left."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return to_pixels(mean + strength * (images - mean))
