"""Artifacts of JPEG compression."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cv_factory.evaluation.corruptions import Images

STRENGTHS = (60, 30, 10)


def corrupt(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Compress with a quality of ``strength``."""
    return np.stack([_compress(image, int(strength)) for image in images])


def _compress(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded, dtype=np.uint8).reshape(image.shape)
