"""Fashion-MNIST's IDX files, made small: right, compressed, truncated, foreign."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from cv_factory.config.data import DataConfig
from cv_factory.data.ingest import ingest
from cv_factory.errors import DataError

NAMES = {"train": "train", "test": "t10k"}


def write_idx(path: Path, array: np.ndarray, compress: bool) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


def write_fashion(folder: Path, compress: bool) -> np.ndarray:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = (np.arange(40) % 10).astype(np.uint8)
    suffix = ".gz" if compress else ""
    for rows, name in ((slice(0, 30), "train"), (slice(30, 40), "t10k")):
        write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", images[rows], compress)
        write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", labels[rows], compress)
    return images


@pytest.mark.parametrize("compress", [True, False])
def test_files_in_the_data_dir_are_read(tmp_path: Path, compress: bool) -> None:
    images = write_fashion(tmp_path, compress)
    dataset = ingest(DataConfig(source="fashion_mnist", data_dir=str(tmp_path)))
    np.testing.assert_array_equal(dataset.images[..., 0], images)
    assert (dataset.manifest["official_split"] == "test").sum() == 10
    assert dataset.class_names[dataset.labels[9]] == "Ankle boot"


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08\x03" + b"\x00" * 12, b"junk" * 100])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_fashion(tmp_path, compress=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content + b"x")
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        ingest(DataConfig(source="fashion_mnist", data_dir=str(tmp_path)))


def test_a_file_that_is_not_gzip_is_named(tmp_path: Path) -> None:
    write_fashion(tmp_path, compress=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz cannot be read"):
        ingest(DataConfig(source="fashion_mnist", data_dir=str(tmp_path)))
