"""The split leaks nothing, keeps the classes' shares, and ignores the source's order."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv_factory.config.split import SplitConfig
from cv_factory.config.validation import ValidationConfig
from cv_factory.data.dataset import MANIFEST_COLUMNS, ImageDataset
from cv_factory.data.ingest import ingest
from cv_factory.data.split import Split, split_dataset
from cv_factory.data.validation.great_expectations import validate_dataset
from cv_factory.errors import ArtifactError, DataError, DataRejectedError


def dataset_of(
    labels: list[int],
    pixels: list[str] | None = None,
    official: list[str] | None = None,
    groups: list[str] | None = None,
) -> ImageDataset:
    n = len(labels)
    manifest = pd.DataFrame(
        {
            "id": [f"image-{i}" for i in range(n)],
            "label": labels,
            "source": [f"/images/{i}.png" for i in range(n)],
            "pixels_sha256": pixels or [f"pixels-{i}" for i in range(n)],
            "width": 4,
            "height": 4,
            "mode": "L",
            "brightness": 0.5,
            "contrast": 0.1,
            "sharpness": 0.1,
            "official_split": official or [""] * n,
        }
    ).astype(MANIFEST_COLUMNS)
    if groups is not None:
        manifest["group"] = pd.Series(groups, dtype=MANIFEST_COLUMNS["id"])
    names = tuple(f"class-{k}" for k in range(max(labels) + 1))
    return ImageDataset(np.zeros((n, 4, 4, 1), np.uint8), manifest, names, "made for a test")


def parts_by_id(dataset: ImageDataset, split: Split) -> dict[str, str]:
    ids = dataset.manifest["id"].to_numpy()
    return {ids[i]: name for name, indices in split.items() for i in indices}


label_lists = st.integers(2, 4).flatmap(
    lambda k: st.lists(st.integers(0, k - 1), min_size=60, max_size=150).map(
        lambda labels: labels + [c for c in range(k) for _ in range(12)]
    )
)


@settings(max_examples=40, deadline=None)
@given(label_lists, st.integers(0, 10), st.data())
def test_every_image_is_in_one_part_and_equal_pixels_stay_together(
    labels: list[int], seed: int, data: st.DataObject
) -> None:
    pixels = [f"p{data.draw(st.integers(0, 300))}" for _ in labels]
    dataset = dataset_of(labels, pixels)
    split = split_dataset(dataset, SplitConfig(seed=seed))
    joined = np.concatenate([indices for _, indices in split.items()])
    assert sorted(joined.tolist()) == list(range(len(labels)))
    hashes = dataset.manifest["pixels_sha256"].to_numpy()
    seen = [set(hashes[indices]) for _, indices in split.items()]
    assert not any(one & other for one, other in combinations(seen, 2))


@settings(max_examples=40, deadline=None)
@given(label_lists, st.integers(0, 10))
def test_each_class_has_its_share_in_each_part(labels: list[int], seed: int) -> None:
    dataset = dataset_of(labels)
    config = SplitConfig(seed=seed, validation=0.25, test=0.2)
    split = split_dataset(dataset, config)
    for label in set(labels):
        n = labels.count(label)
        for indices, share in ((split.test, config.test), (split.validation, config.validation)):
            assert abs((dataset.labels[indices] == label).sum() - share * n) <= 1


@settings(max_examples=25, deadline=None)
@given(label_lists, st.randoms(use_true_random=False))
def test_the_order_of_the_source_does_not_matter(labels: list[int], random: object) -> None:
    dataset = dataset_of(labels)
    order = np.random.default_rng(random.randrange(2**32)).permutation(len(labels))  # type: ignore[attr-defined]
    shuffled = ImageDataset(
        dataset.images[order],
        dataset.manifest.iloc[order].reset_index(drop=True),
        dataset.class_names,
        dataset.source,
    )
    config = SplitConfig(seed=3)
    assert parts_by_id(dataset, split_dataset(dataset, config)) == parts_by_id(
        shuffled, split_dataset(shuffled, config)
    )


def test_another_seed_gives_another_split_and_the_same_seed_the_same() -> None:
    dataset = dataset_of([0, 1] * 50)
    first, again, other = (split_dataset(dataset, SplitConfig(seed=s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.test, again.test)
    assert first.test.tolist() != other.test.tolist()


@settings(max_examples=40, deadline=None)
@given(label_lists, st.integers(0, 10), st.randoms(use_true_random=False))
def test_groups_and_what_they_share_pixels_with_stay_together(
    labels: list[int], seed: int, random: object
) -> None:
    n = len(labels)
    rng = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    groups = [f"g{k}" if k < n // 3 else "" for k in rng.integers(0, n, n)]
    pixels = [f"p{k}" for k in rng.integers(0, 3 * n, n)]
    dataset = dataset_of(labels, pixels, groups=groups)
    order = rng.permutation(n)
    shuffled = ImageDataset(
        dataset.images, dataset.manifest.iloc[order].reset_index(drop=True), dataset.class_names, ""
    )
    split = split_dataset(dataset, SplitConfig(seed=seed))
    parts = np.empty(n, object)
    for name, indices in split.items():
        parts[indices] = name
    table = pd.DataFrame({"part": parts, "pixels": pixels, "group": groups})
    assert (table.groupby("pixels")["part"].nunique() == 1).all()
    assert (table[table["group"] != ""].groupby("group")["part"].nunique() <= 1).all()
    assert parts_by_id(dataset, split) == parts_by_id(
        shuffled, split_dataset(shuffled, SplitConfig(seed=seed))
    )


@settings(max_examples=30, deadline=None)
@given(label_lists, st.integers(5, 20), st.integers(5, 20))
def test_sizes_may_be_counts_and_are_met(labels: list[int], validation: int, test: int) -> None:
    split = split_dataset(dataset_of(labels), SplitConfig(validation=validation, test=test))
    assert (split.sizes["validation"], split.sizes["test"]) == (validation, test)


def test_groups_of_ten_leave_each_part_near_its_share() -> None:
    labels = [0, 1] * 200
    groups = [f"patient-{n // 10}" for n in range(400)]
    split = split_dataset(dataset_of(labels, groups=groups), SplitConfig())
    assert abs(split.sizes["test"] - 80) <= 10
    assert abs(split.sizes["validation"] - 80) <= 10


def test_a_count_above_the_images_there_are_is_refused() -> None:
    with pytest.raises(DataError, match=r"split\.test asks for 500 images; there are 100"):
        split_dataset(dataset_of([0, 1] * 50), SplitConfig(test=500))


def test_an_official_validation_split_is_kept_too() -> None:
    official = ["train"] * 40 + ["validation"] * 20 + ["test"] * 20
    split = split_dataset(dataset_of([0, 1] * 40, official=official), SplitConfig())
    assert split.validation.tolist() == list(range(40, 60))
    assert split.test.tolist() == list(range(60, 80))


def test_an_official_test_split_is_kept_unless_told_otherwise() -> None:
    official = ["train"] * 60 + ["test"] * 20
    dataset = dataset_of([0, 1] * 40, official=official)
    assert split_dataset(dataset, SplitConfig()).test.tolist() == list(range(60, 80))
    mixed = split_dataset(dataset, SplitConfig(keep_official_test=False))
    assert mixed.test.tolist() != list(range(60, 80))


def test_a_training_image_that_is_also_an_official_test_image_leaves_training() -> None:
    pixels = [f"p{i}" for i in range(80)]
    pixels[0] = pixels[60]
    dataset = dataset_of([0, 1] * 40, pixels, ["train"] * 60 + ["test"] * 20)
    assert 0 in split_dataset(dataset, SplitConfig()).test


def refusal(dataset: ImageDataset, config: SplitConfig | None = None) -> str:
    """Return the words in which validation refuses a dataset, as it was split."""
    report = validate_dataset(
        dataset.manifest,
        class_names=dataset.class_names,
        split=dict(split_dataset(dataset, config or SplitConfig()).items()),
        config=ValidationConfig(),
    )
    with pytest.raises(DataRejectedError) as caught:
        report.require_ok()
    return str(caught.value)


def test_every_class_that_is_too_small_is_named_by_validation() -> None:
    text = refusal(dataset_of([0] * 50 + [1, 1, 1, 2]))
    assert "Found class-2 (1 image), class-1 (3 images), allowed at least 5." in text
    assert "no image in train of class-2 (1 image); no image in validation of class-2" in text
    assert text.count("--set data.drop_classes_below=5") == 2
    assert "Concerns" not in text, "they were named"


def test_a_class_that_cannot_be_divided_is_named_by_validation() -> None:
    labels, groups = [0] * 50 + [1] * 20, [""] * 50 + ["one patient"] * 20
    text = refusal(dataset_of(labels, groups=groups))
    assert "of class-1 (20 images, 1 that can be divided)" in text
    assert "A class needs 3 images that differ and are of different groups" in text


def test_a_class_that_an_official_part_lacks_is_named_by_validation() -> None:
    labels = [0, 1, 2] * 20 + [0, 1] * 10 + [0, 2] * 10
    official = ["train"] * 60 + ["test"] * 20 + ["validation"] * 20
    dataset = dataset_of(labels, official=official)
    text = refusal(dataset)
    assert "no image in the official validation part of class-1 (30 images)" in text
    assert "no image in the official test part of class-2 (30 images)" in text
    assert "--set split.keep_official_test=false" in text
    mixed = split_dataset(dataset, SplitConfig(keep_official_test=False))
    assert all(len(set(dataset.labels[indices])) == 3 for _, indices in mixed.items())


def test_images_without_a_label_are_in_no_part_and_named_by_validation() -> None:
    labels = [0, 1] * 20 + [-1, -1]
    groups = [""] * 39 + ["a", "a", "b"]  # one of them belongs to an image that has a label
    dataset = dataset_of(labels, groups=groups)
    split = split_dataset(dataset, SplitConfig())
    assert sorted(i for _, indices in split.items() for i in indices) == list(range(40))
    assert "labels_present: Every image has a label. Found 2 of 42" in refusal(dataset)


def test_a_split_is_read_back_and_a_damaged_one_refused(tmp_path) -> None:
    split = split_dataset(dataset_of([0, 1] * 30), SplitConfig())
    split.save(tmp_path)
    loaded = Split.load(tmp_path)
    for name, indices in split.items():
        np.testing.assert_array_equal(getattr(loaded, name), indices)
    content = bytearray((tmp_path / "split.npz").read_bytes())
    content[40] ^= 1
    (tmp_path / "split.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"split\.npz does not match its checksum"):
        Split.load(tmp_path)


def test_digits_are_split_as_configured() -> None:
    from cv_factory.config.data import DataConfig

    dataset = ingest(DataConfig())
    split = split_dataset(dataset, SplitConfig(validation=0.15, test=0.2))
    assert sum(split.sizes.values()) == 1797
    assert abs(split.sizes["test"] - 0.2 * 1797) <= 10
