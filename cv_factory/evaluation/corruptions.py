"""Ways in which images go bad between a camera and a model, each at three severities.

After D. Hendrycks and T. Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations, 2019. Strengths are shares of the image's size or of the range of its values, so
that they mean the same for small and large images.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]
SEVERITIES = (1, 2, 3)


def corrupt(images: Images, name: str, severity: int, seed: int) -> Images:
    """Return corrupted copies of uint8 ``(N, H, W, C)``; the same seed gives the same pixels.

    Args:
        images: With one or three channels.
        name: One of ``CORRUPTIONS``.
        severity: 1, 2 or 3.
        seed: Of the noise, and of where pieces are moved or covered.
    """
    function, strengths = CORRUPTIONS[name]
    # The severities of a corruption share their noise and directions: only the strength differs.
    rng = np.random.default_rng([seed, *name.encode()])
    return function(images, strengths[severity - 1], rng)


def _gaussian_noise(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Add noise with a standard deviation of ``strength`` of the range."""
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return _to_pixels(images + 255 * strength * noise)


def _gaussian_blur(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Blur with a standard deviation of ``strength`` of the shorter side."""
    from scipy.ndimage import gaussian_filter

    sigma = strength * min(images.shape[1:3])
    blurred = gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0), mode="nearest")
    return _to_pixels(blurred)


def _brightness(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Add ``strength`` of the range, or take it away from every second image."""
    signs = np.where(np.arange(len(images)) % 2 == 0, 1.0, -1.0)[:, None, None, None]
    return _to_pixels(images + 255 * strength * signs)


def _contrast(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Draw every pixel towards its image's mean until ``strength`` of the contrast is left."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return _to_pixels(mean + strength * (images - mean))


def _jpeg(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Compress with a quality of ``strength``."""
    return np.stack([_compressed(image, int(strength)) for image in images])


def _compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded, dtype=np.uint8).reshape(image.shape)


def _rotation(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Turn by ``strength`` degrees, to the left or to the right."""
    signs = rng.choice([-1.0, 1.0], len(images))
    return np.stack(
        [_turned(image, sign * strength) for image, sign in zip(images, signs, strict=True)]
    )


def _turned(image: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    ground = tuple(int(value) for value in _edge_colour(image))
    fill = ground[0] if len(ground) == 1 else ground
    turned = picture.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill)
    return np.asarray(turned, dtype=np.uint8).reshape(image.shape)


def _translation(images: Images, strength: float, rng: np.random.Generator) -> Images:
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


def _occlusion(images: Images, strength: float, rng: np.random.Generator) -> Images:
    """Cover a square whose sides are ``strength`` of the image's with its mean colour."""
    height, width = images.shape[1:3]
    rows, columns = (max(1, round(strength * side)) for side in (height, width))
    covered = images.copy()
    tops = rng.integers(0, height - rows + 1, len(images))
    lefts = rng.integers(0, width - columns + 1, len(images))
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        covered[i, top : top + rows, left : left + columns] = images[i].mean(axis=(0, 1)).round()
    return covered


def _edge_colour(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the median of the four edges, by channel: what most likely lies outside."""
    edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return np.asarray(np.median(edges, axis=0))


def _to_pixels(values: NDArray[np.floating]) -> Images:
    pixels: Images = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


_Corruption = Callable[[Images, float, np.random.Generator], Images]
#: By name, the function and its strength at severity 1, 2 and 3.
CORRUPTIONS: dict[str, tuple[_Corruption, tuple[float, float, float]]] = {
    "gaussian_noise": (_gaussian_noise, (0.05, 0.1, 0.2)),
    "gaussian_blur": (_gaussian_blur, (0.02, 0.04, 0.08)),
    "brightness": (_brightness, (0.1, 0.2, 0.4)),
    "contrast": (_contrast, (0.6, 0.4, 0.2)),
    "jpeg": (_jpeg, (60, 30, 10)),
    "rotation": (_rotation, (8, 16, 30)),
    "translation": (_translation, (0.05, 0.1, 0.2)),
    "occlusion": (_occlusion, (0.2, 0.35, 0.5)),
}
