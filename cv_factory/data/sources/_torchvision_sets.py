"""Data sets of torchvision by name, with their own training and test parts."""

import hashlib
import inspect
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cv_factory.artifacts.files import fingerprint
from cv_factory.artifacts.filesystems import describe_error
from cv_factory.data.sources import Content, ImageRecord, ImageSource
from cv_factory.data.sources._arrays import DOWNLOAD_FOLDER
from cv_factory.data.sources._listing import official_split
from cv_factory.errors import ImageError, SourceError

_TARGETS = ("targets", "labels", "_labels", "y")
_FILES = ("samples", "_samples", "imgs")


class TorchvisionSource(ImageSource):
    """An image classification set of ``torchvision.datasets``, downloaded where it is missing."""

    def __init__(self, name: str, data_dir: str | None, download: bool) -> None:
        """Open all parts of the set.

        Args:
            name: Class name in torchvision.datasets, such as ``CIFAR10``.
            data_dir: Where it lies or is downloaded to.
            download: Whether it may be downloaded.

        Raises:
            SourceError: There is no such set, it is neither there nor to be had, or it gives other
                things than images with one label each.
        """
        self._name = name
        root = Path(data_dir).expanduser() if data_dir else DOWNLOAD_FOLDER.expanduser()
        self._parts = _open_parts(name, root, download)
        self._targets = [_targets(part) for _, part in self._parts]
        self._ends = np.cumsum([len(targets) for targets in self._targets])
        self._arrays = [_array(part) for _, part in self._parts]

    @property
    def description(self) -> str:
        """The set."""
        return f"torchvision {self._name}"

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The set's own names, or the labels' numbers."""
        highest = max((int(targets.max(initial=-1)) for targets in self._targets), default=-1)
        names = getattr(self._parts[0][1], "classes", None)
        if isinstance(names, list | tuple) and len(names) > highest:
            return tuple(str(n[0] if isinstance(n, tuple) else n) for n in names)
        return tuple(str(number) for number in range(highest + 1))

    def __len__(self) -> int:
        """Return the number of images in all parts."""
        return int(self._ends[-1])

    def fingerprint(self) -> str:
        """Digest of name, version, classes, labels, and of the images or their files."""
        from importlib.metadata import version

        labels = [targets.tolist() for targets in self._targets]
        pairs = zip(self._parts, self._arrays, strict=True)
        images = [_images_version(part, array) for (_, part), array in pairs]
        return fingerprint([self._name, version("torchvision"), self.class_names, labels, images])

    def records(self, indices: npt.NDArray[np.int64]) -> Iterator[ImageRecord]:
        """Yield the records; an image that lies in a file is read when it is asked for."""
        for index in indices:
            part = int(np.searchsorted(self._ends, index, side="right"))
            inside = int(index - (self._ends[part - 1] if part else 0))
            split, dataset = self._parts[part]
            array = self._arrays[part]
            name = f"{split or 'image'}-{inside:06d}"
            yield ImageRecord(
                id=name,
                location=f"{self.description}#{name}",
                label=self.class_names[int(self._targets[part][inside])],
                content=partial(_pixels, dataset, inside) if array is None else array[inside],
                official_split=official_split(split, self._name),
            )


def _open_parts(name: str, root: Path, download: bool) -> list[tuple[str, Any]]:
    """Open the parts that the set's constructor offers: by ``train=``, by ``split=``, or one."""
    from torchvision import datasets

    kind: Any = getattr(datasets, name, None)
    base = datasets.VisionDataset
    if not (inspect.isclass(kind) and issubclass(kind, base) and kind is not base):
        raise SourceError(f"torchvision.datasets has no data set {name!r}.")
    parameters = inspect.signature(kind).parameters
    options: dict[str, Any] = {"download": download} if "download" in parameters else {}
    if "train" in parameters:
        variants: list[tuple[str, dict[str, Any]]] = [
            ("train", {"train": True}),
            ("test", {"train": False}),
        ]
    elif "split" in parameters:
        variants = [(split, {"split": split}) for split in ("train", "val", "test")]
    else:
        variants = [("", {})]
    opened = []
    make: Callable[..., Any] = kind
    for split, selected in variants:
        try:
            opened.append((split, make(str(root), **selected, **options)))
        except ValueError as error:
            # Most sets have no 'val'.
            if split != "val":
                raise SourceError(f"torchvision {name} cannot be opened: {error}.") from None
        except (OSError, RuntimeError, TypeError) as error:
            raise SourceError(
                f"torchvision {name} is not in {root} and cannot be had ({error}). Give its folder "
                "with --data-dir."
            ) from None
    return opened


def _targets(dataset: Any) -> npt.NDArray[np.int64]:
    """Return the labels int64 ``(n,)`` of a set, without reading its images where it keeps them."""
    for attribute in _TARGETS:
        values = getattr(dataset, attribute, None)
        if values is not None and len(values) == len(dataset):
            return _as_labels(values, dataset)
    for attribute in _FILES:
        samples = getattr(dataset, attribute, None)
        if samples is not None and len(samples) == len(dataset):
            return _as_labels([sample[1] for sample in samples], dataset)
    return _as_labels([dataset[index][1] for index in range(len(dataset))], dataset)


def _as_labels(values: Any, dataset: Any) -> npt.NDArray[np.int64]:
    labels = np.asarray(values)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise SourceError(
            f"torchvision {type(dataset).__name__} does not give one class label an image."
        )
    return labels.astype(np.int64)


def _array(dataset: Any) -> npt.NDArray[np.uint8] | None:
    """Return all images of a set as one array uint8 ``(N, H, W, C)``, where it keeps one.

    Trusted only where it holds what the set itself gives as its first, middle and last image.
    """
    values = np.asarray(data) if (data := getattr(dataset, "data", None)) is not None else None
    if values is None or values.dtype != np.uint8 or len(values) != len(dataset) or not len(values):
        return None
    if values.ndim == 3:
        layouts = [values[..., None]]
    else:
        # SVHN and STL10 keep channels first.
        layouts = [values, np.moveaxis(values, 1, -1)] if values.ndim == 4 else []
    probed = {0, len(values) // 2, len(values) - 1}
    try:
        samples = {index: _pixels(dataset, index) for index in probed}
    except ImageError:
        return None
    return next(
        (a for a in layouts if all(np.array_equal(a[i], pixels) for i, pixels in samples.items())),
        None,
    )


def _images_version(dataset: Any, array: npt.NDArray[np.uint8] | None) -> Any:
    """Return what changes with the images of a set: their SHA-256, or size and time of each file.

    Empty for a set that gives away neither: a published set does not change.
    """
    if array is not None:
        return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    for attribute in _FILES:
        samples = getattr(dataset, attribute, None)
        if samples and isinstance(samples[0][0], str | Path):
            return [_file_version(sample[0]) for sample in samples]
    return []


def _file_version(path: str | Path) -> list[int] | str:
    """Return size and time of a file, or why it has none: its record is quarantined."""
    try:
        status = Path(path).stat()
    except OSError as error:
        return describe_error(error)
    return [status.st_size, status.st_mtime_ns]


def _pixels(dataset: Any, index: int) -> Content:
    """Return an image of a set as pixels uint8 ``(H, W, C)``."""
    try:
        image = dataset[index][0]
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(str(error) or type(error).__name__) from None
    grey = getattr(image, "mode", "") in ("1", "L")
    pixels = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels
