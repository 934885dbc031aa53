"""A tilted camera."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cv_factory.evaluation.corruptions import Images

STRENGTHS = (8, 16, 30)


def corrupt(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Turn by ``strength`` degrees, to the left or to the right."""
    signs = rng.choice([-1.0, 1.0], len(images))
    return np.stack(
        [_rotate(image, sign * strength) for image, sign in zip(images, signs, strict=True)]
    )


def _rotate(image: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    ground = tuple(int(value) for value in _edge_color(image))
    fill = ground[0] if len(ground) == 1 else ground
    rotated = picture.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill)
    return np.asarray(rotated, dtype=np.uint8).reshape(image.shape)


def _edge_color(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the median of the four edges, by channel: what most likely lies outside."""
    edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return np.asarray(np.median(edges, axis=0))
