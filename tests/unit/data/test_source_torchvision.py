"""torchvision's sets by name, from files in their own formats; nothing is downloaded."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cv_factory.config.data import DataConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.sources import open_source
from cv_factory.errors import DataError
from tests.support.images import encode


def set_of(root: Path, source: str = "torchvision", **settings: object) -> DataConfig:
    values = {"source": source, "data_dir": str(root), **settings}
    return DataConfig.model_validate(values)


def write_mnist(folder: Path) -> np.ndarray:
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = (np.arange(40) % 10).astype(np.uint8)
    for rows, name in ((slice(0, 30), "train"), (slice(30, 40), "t10k")):
        for array, kind in ((images[rows], "images-idx3"), (labels[rows], "labels-idx1")):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return images


def write_svhn(file: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images ``(N, 3, 32, 32)``; the format calls the digit 0 the tenth."""
    from scipy.io import savemat

    tens = np.where(labels == 0, 10, labels)[:, None]
    savemat(file, {"X": images.transpose(2, 3, 1, 0), "y": tens})


def test_mnist_keeps_its_pixels_labels_and_test_part(tmp_path: Path) -> None:
    images = write_mnist(tmp_path / "MNIST" / "raw")
    dataset = ingest(set_of(tmp_path, "mnist"))
    np.testing.assert_array_equal(dataset.images[..., 0], images)
    assert dataset.labels.tolist() == [n % 10 for n in range(40)]
    assert dataset.class_names[3] == "3 - three"
    assert dataset.manifest["official_split"].value_counts().to_dict() == {"train": 30, "test": 10}
    by_name = set_of(tmp_path, torchvision={"name": "MNIST", "download": False})
    assert ingest(by_name).fingerprint == dataset.fingerprint


def test_a_set_that_keeps_its_images_as_an_array_is_not_decoded_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import SVHN

    images = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(20) % 10
    for name, rows in (("train", slice(0, 12)), ("test", slice(12, 20))):
        file = tmp_path / f"{name}_32x32.mat"
        write_svhn(file, images[rows], labels[rows])
        # torchvision compares the published files' digests.
        digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(SVHN.split_list, name, ["", file.name, digest])
    config = set_of(tmp_path, torchvision={"name": "SVHN", "download": False})
    with open_source(config) as source:
        kinds = {type(record.content) for record in source.records(np.arange(20))}
    assert kinds == {np.ndarray}
    dataset = ingest(config)
    np.testing.assert_array_equal(dataset.images, images.transpose(0, 2, 3, 1))
    assert dataset.labels.tolist() == labels.tolist()


def test_a_set_with_split_names_has_its_validation_part(tmp_path: Path) -> None:
    colours = {"negative": "red", "positive": "blue"}
    for split in ("train", "valid", "test"):
        for label, colour in colours.items():
            folder = tmp_path / "rendered-sst2" / split / label
            folder.mkdir(parents=True)
            (folder / "0.png").write_bytes(encode(Image.new("RGB", (8, 8), colour)))
    dataset = ingest(set_of(tmp_path, torchvision={"name": "RenderedSST2", "download": False}))
    assert dataset.class_counts == {"negative": 3, "positive": 3}
    assert sorted(set(dataset.manifest["official_split"])) == ["test", "train", "validation"]


def test_a_set_in_one_part_is_read_too(tmp_path: Path) -> None:
    for label in ("Forest", "River"):
        folder = tmp_path / "eurosat" / "2750" / label
        folder.mkdir(parents=True)
        (folder / f"{label}_1.jpg").write_bytes(encode(Image.new("RGB", (64, 64)), "JPEG"))
    config = set_of(tmp_path, torchvision={"name": "EuroSAT", "download": False})
    assert ingest(config).class_names == ("Forest", "River")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoSuchSet", "no data set 'NoSuchSet'"),
        ("VisionDataset", "no data set"),
        ("CIFAR10", "is not in .* Give its folder with --data-dir"),
    ],
)
def test_a_set_that_cannot_be_had_is_explained(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(set_of(tmp_path, torchvision={"name": name, "download": False}))
