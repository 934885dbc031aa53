"""Over- and underexposure."""

import numpy as np

from cv_factory.evaluation.corruptions import Images, to_pixels

STRENGTHS = (0.1, 0.2, 0.4)


def corrupt(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Add ``strength`` of the range, or take it away from every second image."""
    signs = np.where(np.arange(len(images)) % 2 == 0, 1.0, -1.0)[:, None, None, None]
    return to_pixels(images + 255 * strength * signs)
