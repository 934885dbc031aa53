"""Numbers that describe how an image looks, computed for many images at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class ImageStatistics:
    """Three float32 ``(N,)`` arrays in [0, 1]."""

    brightness: npt.NDArray[np.float32]
    contrast: npt.NDArray[np.float32]
    sharpness: npt.NDArray[np.float32]


def image_statistics(images: npt.NDArray[np.uint8]) -> ImageStatistics:
    """Describe images by their luma.

    Args:
        images: uint8 ``(N, H, W, C)`` with C 1 or 3.

    Returns:
        Brightness is the mean, contrast the standard deviation, and sharpness the mean absolute
        response of the 4-neighbour Laplacian (scaled by 1/4), each of luma / 255.
    """
    luma = _luma(images)
    laplacian = (
        4 * luma[:, 1:-1, 1:-1]
        - luma[:, :-2, 1:-1]
        - luma[:, 2:, 1:-1]
        - luma[:, 1:-1, :-2]
        - luma[:, 1:-1, 2:]
    )
    return ImageStatistics(
        brightness=luma.mean(axis=(1, 2), dtype=np.float32),
        contrast=luma.std(axis=(1, 2), dtype=np.float32),
        sharpness=np.abs(laplacian).mean(axis=(1, 2), dtype=np.float32) / np.float32(4),
    )


def _luma(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    scaled = images.astype(np.float32) / np.float32(255)
    return scaled[..., 0] if images.shape[-1] == 1 else np.matmul(scaled, _LUMA, dtype=np.float32)
