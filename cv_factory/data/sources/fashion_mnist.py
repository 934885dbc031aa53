"""Fashion-MNIST from its IDX files. H. Xiao, K. Rasul and R. Vollgraf, 2017."""

import gzip
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cv_factory.artifacts.files import fingerprint
from cv_factory.config.data import DataConfig
from cv_factory.data.sources._arrays import DOWNLOAD_FOLDER, Arrays, ArraySource
from cv_factory.errors import DataError

_DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FASHION_FILES = (
    ("train", "train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("test", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


class FashionMNISTSource(ArraySource):
    """Fashion-MNIST from IDX files, gzipped or not; torchvision downloads what is missing."""

    class_names = _FASHION_CLASSES

    def __init__(self, data_dir: str | None) -> None:
        """Read from ``data_dir``, or where Debian's package or a former download put the files."""
        self._data_dir = Path(data_dir).expanduser() if data_dir else None

    @property
    def description(self) -> str:
        """Human-readable name of the source and its location."""
        return "Fashion-MNIST"

    @cached_property
    def _arrays(self) -> Arrays:
        folder = self._folder or _download_fashion(self._data_dir or DOWNLOAD_FOLDER.expanduser())
        images, labels, ids, splits = [], [], [], []
        for split, image_name, label_name in _FASHION_FILES:
            images.append(_read_idx(_idx_file(folder, image_name), dimensions=3))
            labels.append(_read_idx(_idx_file(folder, label_name), dimensions=1))
            n = len(images[-1])
            if len(labels[-1]) != n:
                raise DataError(f"{folder}: {n} {split} images, {len(labels[-1])} labels.")
            ids += [f"{split}-{i:05d}" for i in range(n)]
            splits += [split] * n
        pixels = np.concatenate(images)[..., None]
        return Arrays(pixels, np.concatenate(labels).astype(np.int64), ids, splits)

    @property
    def _folder(self) -> Path | None:
        """The folder that holds all four files; None if they are to be downloaded."""
        root = self._data_dir or DOWNLOAD_FOLDER.expanduser()
        candidates = [root, root / "FashionMNIST" / "raw"]
        if self._data_dir is None:
            candidates.insert(0, _DEBIAN_FOLDER)
        return next((folder for folder in candidates if _has_all_files(folder)), None)

    def fingerprint(self) -> str:
        """Digest of names, sizes and modification times of the files."""
        if self._folder is None:
            return fingerprint("to be downloaded")
        files = [_idx_file(self._folder, name) for _, *names in _FASHION_FILES for name in names]
        return fingerprint([[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files])


def open_source(config: DataConfig, *, labelled: bool) -> FashionMNISTSource:
    """Open the set."""
    return FashionMNISTSource(config.data_dir)


def _has_all_files(folder: Path) -> bool:
    names = [name for _, *names in _FASHION_FILES for name in names]
    return all((folder / n).is_file() or (folder / f"{n}.gz").is_file() for n in names)


def _download_fashion(root: Path) -> Path:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"Fashion-MNIST is neither in {root} nor in {_DEBIAN_FOLDER}, and downloading it "
            f"failed ({error}). Give its folder with --data-dir, or install Debian's package "
            "dataset-fashion-mnist."
        ) from None
    return root / "FashionMNIST" / "raw"


def _idx_file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def _read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes.

    Format: http://yann.lecun.com/exdb/mnist/ (magic 0x00 0x00 0x08 <dimensions>, big-endian sizes).

    Raises:
        DataError: The file is not such a file or is truncated.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}).") from None
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path} is not an IDX file of {dimensions}-dimensional bytes.")
    shape = tuple(np.frombuffer(content, ">u4", count=dimensions, offset=4).tolist())
    if len(content) - header != int(np.prod(shape)):
        raise DataError(f"{path} is truncated: {len(content) - header} bytes for shape {shape}.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
