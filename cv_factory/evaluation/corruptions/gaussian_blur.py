"""A lens out of focus."""

import numpy as np

from cv_factory.evaluation.corruptions import Images, to_pixels

STRENGTHS = (0.02, 0.04, 0.08)


def corrupt(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Blur with a standard deviation of ``strength`` of the shorter side."""
    from scipy.ndimage import gaussian_filter

    sigma = strength * min(images.shape[1:3])
    blurred = gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0), mode="nearest")
    return to_pixels(blurred)
