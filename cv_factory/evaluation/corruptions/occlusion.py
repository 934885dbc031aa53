"""A part that is covered."""

import numpy as np

from cv_factory.evaluation.corruptions import Images

STRENGTHS = (0.2, 0.35, 0.5)


def corrupt(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Cover a square whose sides are ``strength`` of the image's with its mean color."""
    height, width = images.shape[1:3]
    rows, columns = (max(1, round(strength * side)) for side in (height, width))
    covered = images.copy()
    tops = rng.integers(0, height - rows + 1, len(images))
    lefts = rng.integers(0, width - columns + 1, len(images))
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        covered[i, top : top + rows, left : left + columns] = images[i].mean(axis=(0, 1)).round()
    return covered
