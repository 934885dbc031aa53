"""Encoded images for tests, drawn so that a wrong decoding shows."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_sample_images


def scene(height: int = 24, width: int = 32) -> npt.NDArray[np.uint8]:
    """Red left half, blue right half, a white top-left corner: uint8 ``(H, W, 3)``."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = (200, 30, 30)
    pixels[:, width // 2 :] = (30, 30, 200)
    pixels[: height // 4, : width // 4] = 255
    return pixels


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Encode an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_class_folders(root: Path, per_class: int = 30, size: int = 12) -> None:
    """Write PNGs of two classes that differ: bright discs and dark stripes."""
    rng = np.random.default_rng(0)
    for name in ("disc", "stripe"):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
            if name == "disc":
                rows, columns = np.ogrid[:size, :size]
                inside = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < (size / 3) ** 2
                pixels[inside] += 180
            else:
                pixels[:: 2 + number % 2] += 120
            (root / name / f"{number:03d}.png").write_bytes(encode(Image.fromarray(pixels)))


def write_photo_folders(root: Path, per_class: int = 12) -> None:
    """Write pieces of scikit-learn's two photographs as three classes, as cameras leave them.

    Sizes and shapes differ, there are JPEGs and PNGs, and one photo of each class is grey.
    """
    china, flower = (Image.fromarray(photo) for photo in load_sample_images().images)
    rng = np.random.default_rng(0)
    rows = {"sky": (china, 0, 60), "roof": (china, 130, 300), "flower": (flower, 100, 300)}
    for name, (photo, first, last) in rows.items():
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            side = int(rng.integers(30, 100))
            left, top = int(rng.integers(100, 400)), int(rng.integers(first, last - side // 2))
            piece = photo.crop((left, top, left + side, top + side // 2))
            kind = "png" if number % 3 else "jpeg"
            content = encode(piece.convert("L") if number == 1 else piece, kind.upper())
            (root / name / f"{number:03d}.{kind}").write_bytes(content)
