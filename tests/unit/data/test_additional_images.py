"""Images that are added to a dataset: the others stay in their parts, pixels come once."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cv_factory.config.data import DataConfig
from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.split import SplitConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.encode import encode_png
from cv_factory.data.ingest import ingest
from cv_factory.data.split import split_dataset
from cv_factory.errors import DataError
from cv_factory.evaluation.slices import assign_slices

CONFIG = DataConfig(limit=300)


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return ingest(CONFIG)


def write_manifest(
    folder: Path, dataset: ImageDataset, parts: list[str], labels: list[str] | None = None
) -> str:
    """Write the first images, upside down, and one as it is, which the dataset has already."""
    names = [dataset.class_names[k] for k in dataset.labels[: len(parts)]]
    for i in range(len(parts)):
        (folder / f"{i:02d}.png").write_bytes(encode_png(dataset.images[i][::-1]))
    (folder / "same.png").write_bytes(encode_png(dataset.images[0]))
    table = pd.DataFrame(
        {
            "image_path": [*(f"{i:02d}.png" for i in range(len(parts))), "same.png"],
            "label": [*(labels or names), names[0]],
            "split": [*parts, "test"],
        }
    )
    table.to_parquet(folder / "manifest.parquet")
    return str(folder / "manifest.parquet")


def test_added_images_move_no_other_image(digits: ImageDataset, tmp_path: Path) -> None:
    parts = ["train"] * 20 + ["test"] * 18 + ["validation", ""]
    path = write_manifest(tmp_path, digits, parts)
    dataset = ingest(CONFIG.model_copy(update={"additional": path}))
    n, n_added = len(digits), len(parts)
    assert len(dataset) == n + n_added
    np.testing.assert_array_equal(dataset.images[:n], digits.images)
    np.testing.assert_array_equal(dataset.images[n:], digits.images[:n_added, ::-1])
    assert dataset.labels.tolist() == [*digits.labels, *digits.labels[:n_added]]
    assert "1 additional image left out" in " ".join(dataset.notices)

    config = SplitConfig(seed=3)
    before, after = (dict(split_dataset(d, config).items()) for d in (digits, dataset))
    added = {"train": [*range(20), 39], "validation": [38], "test": list(range(20, 38))}
    for name, indices in after.items():
        assert indices.tolist() == [*before[name], *(n + i for i in added[name])], name

    test = after["test"]
    columns = EvaluateConfig(slices=["origin"]).slices
    rows, labels = dataset.manifest.iloc[test], dataset.labels[test]
    (values,) = assign_slices(rows, labels, dataset.class_names, columns, 4).values()
    assert values == ("original",) * len(before["test"]) + ("additional",) * 18


def test_a_dataset_with_added_images_is_stored_and_read_back(
    digits: ImageDataset, tmp_path: Path
) -> None:
    path = write_manifest(tmp_path, digits, ["train", "test"])
    dataset = ingest(CONFIG.model_copy(update={"additional": path}))
    folder = tmp_path / "dataset"
    folder.mkdir()
    dataset.save(folder)
    loaded = ImageDataset.load(folder)
    assert loaded.content_hash == dataset.content_hash
    assert loaded.manifest["origin"].tolist()[-3:] == ["original", "additional", "additional"]


def test_images_of_another_class_are_refused(digits: ImageDataset, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, digits, ["train", "train"], ["ten", "1"])
    with pytest.raises(DataError, match=r"has no 1 class ten\. Remove"):
        ingest(CONFIG.model_copy(update={"additional": path}))
