"""The ImageDataset: decoded images of one size, and a manifest row for each of them."""

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.artifacts.arrays import load_array
from cv_factory.artifacts.artifact import Artifact
from cv_factory.artifacts.files import checksum_array
from cv_factory.artifacts.npy_stream import save_array
from cv_factory.data.bit_depth import StoredValues, ValueRange
from cv_factory.data.image_manifest import MANIFEST_COLUMNS as MANIFEST_COLUMNS
from cv_factory.data.image_manifest import (
    ordered_digest,
    read_manifest,
    row_digests,
    write_manifest,
)
from cv_factory.errors import ArtifactError

NO_LABEL = -1

_IMAGES, _MANIFEST = "images.npy", "manifest.parquet"


@dataclass(frozen=True)
class UnreadableImage:
    """An image that was left out of the dataset: its id, where it lies, and why."""

    id: str
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
class ImageDataset(Artifact):
    """Images, labels and where each of them came from.

    Attributes:
        images: uint8 ``(N, H, W, C)``; memory-mapped where it was loaded or streamed from a file.
        manifest: One row per image with the columns ``MANIFEST_COLUMNS``; label is -1 where there
            is none, official_split is empty where the source has no split of its own. Other
            targets than one label (several labels, numbers) may stand in further columns.
        class_names: Name of each label.
        source: What the images were read from, for people.
        unreadable: The images that could not be read.
        notices: What a user should know of the reading, one sentence each: files that were left
            out as no images, images that were converted.
        backing: The temporary file that holds exactly ``images``, where there is one.
        value_range: Stored values that were made black and white, where configured.
        stored_values: What is stored in the originals of more than 8 bits, where there are any.
    """

    KIND: ClassVar[str] = "dataset"
    FORMAT_VERSION: ClassVar[int] = 2

    images: npt.NDArray[np.uint8]
    manifest: pd.DataFrame
    class_names: tuple[str, ...]
    source: str
    unreadable: tuple[UnreadableImage, ...] = ()
    notices: tuple[str, ...] = ()
    backing: ScratchFile | None = field(default=None, repr=False, compare=False)
    value_range: ValueRange | None = None
    stored_values: StoredValues | None = None

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
        head = "\n".join([repr(self.image_shape), *self.class_names])
        digest = hashlib.sha256(head.encode())
        digest.update(row_digests(self.manifest).tobytes())
        return digest.hexdigest()

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the dataset with its order: equal only where every array is equal."""
        digest = hashlib.sha256(self.fingerprint.encode())
        digest.update(ordered_digest(self.manifest).encode())
        digest.update(repr((self.source, self.unreadable)).encode())
        if self.value_range or self.stored_values:
            digest.update(repr((self.value_range, self.stored_values)).encode())
        digest.update("\n".join(self.notices).encode())
        return digest.hexdigest()

    def batches(self, indices: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the images at ``indices``, in order, ``size`` at a time: uint8 ``(n, H, W, C)``."""
        for start in range(0, len(indices), size):
            yield self.images[indices[start : start + size]]

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        with ThreadPoolExecutor(1) as pool:
            checksum = pool.submit(self._write_images, directory / _IMAGES)
            write_manifest(self.manifest, directory / _MANIFEST)
            _ = self.fingerprint  # for the header: computed once, while the pixels are written
        return {_IMAGES: checksum.result(), _MANIFEST: None}

    def _write_images(self, path: Path) -> str:
        """Write the pixels; return their checksum."""
        if self.backing is None:
            return save_array(path, self.images)
        _link_or_copy(self.backing.path, path)
        return checksum_array(path)

    def _header(self) -> dict[str, Any]:
        header: dict[str, Any] = {
            "shape": list(self.images.shape),
            "class_names": list(self.class_names),
            "source": self.source,
            "fingerprint": self.fingerprint,
            "unreadable": [[u.id, u.source, u.reason] for u in self.unreadable],
            "notices": list(self.notices),
        }
        if self.value_range is not None:
            header["value_range"] = list(self.value_range)
        if self.stored_values is not None:
            header["stored_values"] = asdict(self.stored_values)
        return header

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        images = load_array(directory / _IMAGES, mmap=True)
        if images.dtype != np.uint8 or list(images.shape) != body["shape"] or images.ndim != 4:
            raise ArtifactError(
                f"{directory / _IMAGES} holds {images.dtype} {images.shape}, "
                f"{cls.KIND}.json says uint8 {body['shape']}."
            )
        manifest = read_manifest(directory / _MANIFEST, len(images))
        unreadable = tuple(UnreadableImage(*row) for row in body["unreadable"])
        value_range, values = body.get("value_range"), body.get("stored_values")
        return cls(
            images=images.view(np.uint8),
            manifest=manifest,
            class_names=tuple(body["class_names"]),
            source=body["source"],
            unreadable=unreadable,
            notices=tuple(body.get("notices", ())),
            value_range=value_range and (value_range[0], value_range[1]),
            stored_values=values and StoredValues(**values),
        )


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
