"""An object off the center."""

import numpy as np

from cv_factory.evaluation.corruptions import Images

STRENGTHS = (0.05, 0.1, 0.2)


def corrupt(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Move by ``strength`` of each side, at least a pixel, in one of eight directions."""
    height, width = images.shape[1:3]
    rows, columns = (max(1, round(strength * side)) for side in (height, width))
    directions = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)]
    padded = np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode="edge")
    moved = np.empty_like(images)
    for i, choice in enumerate(rng.integers(0, len(directions), len(images))):
        top, left = rows * (1 + directions[choice][0]), columns * (1 + directions[choice][1])
        moved[i] = padded[i, top : top + height, left : left + width]
    return moved
