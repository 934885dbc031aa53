"""Sensor noise."""

import numpy as np

from cv_factory.evaluation.corruptions import Images, to_pixels

STRENGTHS = (0.05, 0.1, 0.2)


def corrupt(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Add noise with a standard deviation of ``strength`` of the range."""
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return to_pixels(images + 255 * strength * noise)
