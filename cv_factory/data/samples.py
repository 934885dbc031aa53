"""Samples of a dataset as image files, one folder a class: what the folder source reads."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cv_factory.data.dataset import ImageDataset
from cv_factory.data.encode import encode_png


def write_samples(
    dataset: ImageDataset, indices: npt.NDArray[np.int64], directory: Path, per_class: int
) -> list[Path]:
    """Write the first images of each class as PNG, and return the files.

    Args:
        dataset: The images; they are written as they were ingested.
        indices: Which of them to take, in order, int64 ``(n,)``.
        directory: Existing directory; gets ``CLASS/NUMBER.png``.
        per_class: Greatest number of images of a class.
    """
    files = []
    for label, name in enumerate(dataset.class_names):
        members = indices[dataset.labels[indices] == label][:per_class]
        folder = directory / _folder_name(name)
        for number, index in enumerate(members, start=1):
            folder.mkdir(exist_ok=True)
            file = folder / f"{number}.png"
            file.write_bytes(encode_png(dataset.images[index]))
            files.append(file)
    return files


def _folder_name(class_name: str) -> str:
    """Return a class name as the name of a visible folder; distinct names stay distinct."""
    return re.sub(r"[/\\\0%]|^\.", lambda match: f"%{ord(match[0]):02X}", class_name)
