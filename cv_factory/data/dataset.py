"""The ImageDataset: decoded images of one size, and a manifest row for each of them."""

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.array_files import load_array
from cv_factory.artifact_files import read_header, write_header
from cv_factory.errors import ArtifactError

#: Columns of a manifest and their types; one row per image, in the images' order.
MANIFEST_COLUMNS = {
    "id": "str",
    "label": "int64",
    "source": "str",
    "pixels_sha256": "str",
    "width": "int32",
    "height": "int32",
    "mode": "str",
    "brightness": "float32",
    "contrast": "float32",
    "sharpness": "float32",
    "official_split": "str",
}
NO_LABEL = -1

_KIND, _VERSION = "dataset", 1
_IMAGES, _MANIFEST = "images.npy", "manifest.parquet"


@dataclass(frozen=True)
class UnreadableImage:
    """An image that was left out of the dataset, and why."""

    source: str
    reason: str


class ScratchFile:
    """A file in a temporary directory that is removed when nobody refers to it, or at exit."""

    def __init__(self, name: str) -> None:
        """Create the directory; the file itself is the caller's to write."""
        directory = Path(tempfile.mkdtemp(prefix="cv-factory-"))
        self.path = directory / name
        self._finalizer = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)


@dataclass(frozen=True)
class ImageDataset:
    """Images, labels and where each of them came from.

    Attributes:
        images: uint8 ``(N, H, W, C)``; memory-mapped where it was loaded or streamed from a file.
        manifest: One row per image with the columns ``MANIFEST_COLUMNS``; label is -1 where there
            is none, official_split is empty where the source has no split of its own.
        class_names: Name of each label.
        source: What the images were read from, for people.
        unreadable: The images that could not be read.
        backing: The temporary file that holds exactly ``images``, where there is one.
    """

    images: npt.NDArray[np.uint8]
    manifest: pd.DataFrame
    class_names: tuple[str, ...]
    source: str
    unreadable: tuple[UnreadableImage, ...] = ()
    backing: ScratchFile | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels int64 ``(N,)``, -1 where there is none."""
        return self.manifest["label"].to_numpy(dtype=np.int64)

    @property
    def class_counts(self) -> dict[str, int]:
        """Number of images by class name."""
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.class_names))
        return {name: int(n) for name, n in zip(self.class_names, counts, strict=True)}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the dataset holds: pixels, labels, ids, classes; not of their order."""
        named = self.manifest["id"] + "\0" + self.manifest["label"].astype(str)
        rows = sorted(named + "\0" + self.manifest["pixels_sha256"])
        head = [repr(self.image_shape), *self.class_names]
        return hashlib.sha256("\n".join(head + rows).encode()).hexdigest()

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the dataset with its order: equal only where every array is equal."""
        table = pd.util.hash_pandas_object(self.manifest, index=False).to_numpy()
        digest = hashlib.sha256(self.fingerprint.encode())
        digest.update(table.tobytes())
        digest.update(repr((self.source, self.unreadable)).encode())
        return digest.hexdigest()

    def batches(self, indices: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the images at ``indices``, ``size`` at a time, in order: uint8 ``(n, H, W, C)``."""
        for start in range(0, len(indices), size):
            yield self.images[indices[start : start + size]]

    def save(self, directory: Path) -> None:
        """Write ``images.npy``, ``manifest.parquet`` and ``dataset.json``; the last one last."""
        if self.backing is not None:
            _link_or_copy(self.backing.path, directory / _IMAGES)
        else:
            np.save(directory / _IMAGES, self.images, allow_pickle=False)
        self.manifest.to_parquet(directory / _MANIFEST, index=False)
        body = {
            "shape": list(self.images.shape),
            "class_names": list(self.class_names),
            "source": self.source,
            "fingerprint": self.fingerprint,
            "unreadable": [[u.source, u.reason] for u in self.unreadable],
        }
        write_header(directory, _KIND, _VERSION, body, [_IMAGES, _MANIFEST])

    @classmethod
    def load(cls, directory: Path, *, verify: bool = False) -> "ImageDataset":
        """Map the images into memory and read the manifest.

        Args:
            directory: Written by ``save``.
            verify: Also check the checksum of an image file above 64 MiB, which reads all of it.

        Raises:
            ArtifactError: The artifact is damaged, incomplete or of another format version.
        """
        body = read_header(directory, _KIND, _VERSION, verify_large=verify)
        images = load_array(directory / _IMAGES, mmap=True)
        if images.dtype != np.uint8 or list(images.shape) != body["shape"] or images.ndim != 4:
            raise ArtifactError(
                f"{directory / _IMAGES} holds {images.dtype} {images.shape}, "
                f"{_KIND}.json says uint8 {body['shape']}."
            )
        manifest = _load_manifest(directory / _MANIFEST, len(images))
        unreadable = tuple(UnreadableImage(*row) for row in body["unreadable"])
        return cls(images, manifest, tuple(body["class_names"]), body["source"], unreadable)


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _load_manifest(path: Path, n_images: int) -> pd.DataFrame:
    try:
        manifest = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{path} is not a readable Parquet table ({error}).") from None
    missing = [column for column in MANIFEST_COLUMNS if column not in manifest.columns]
    if missing or len(manifest) != n_images:
        raise ArtifactError(
            f"{path} has {len(manifest)} rows for {n_images} images and lacks columns {missing}."
        )
    return manifest
