"""Datasets for tests, made of given pixels."""

import hashlib

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.data.dataset import ImageDataset
from cv_factory.data.image_manifest import MANIFEST_COLUMNS


def dataset_of(images: npt.NDArray[np.uint8]) -> ImageDataset:
    """Return images uint8 ``(N, H, W, C)`` as a dataset of two alternating classes."""
    n, height, width, channels = images.shape
    columns = {
        "id": [f"{i:06d}" for i in range(n)],
        "label": np.arange(n) % 2,
        "source": [f"made#{i}" for i in range(n)],
        "pixels_sha256": [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
        "width": width,
        "height": height,
        "mode": "L" if channels == 1 else "RGB",
        "brightness": images.mean(axis=(1, 2, 3)) / 255,
        "contrast": 0.0,
        "sharpness": 0.0,
        "official_split": "",
    }
    manifest = pd.DataFrame(columns).astype(MANIFEST_COLUMNS)
    return ImageDataset(images, manifest, ("even", "odd"), "made for a test")
