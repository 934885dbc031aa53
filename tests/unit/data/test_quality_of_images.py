"""Validation of real images: leakage by group and by looks, conflicts, a reference, thumbnails."""

import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cv_factory.config.data import DataConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.validation import ValidationConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.ingest import ingest
from cv_factory.data.near_duplicates import has_cross_split_near_duplicate
from cv_factory.data.split import split_dataset
from cv_factory.data.validation.great_expectations import Reference, validate_dataset
from cv_factory.data.validation.report import DataReport
from tests.support.images import encode


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Real photographs, cropped to 60 different pieces of two classes."""
    from sklearn.datasets import load_sample_images

    for name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        (tmp_path / name).mkdir()
        for n in range(30):
            top, left = 40 * (n // 10), 55 * (n % 10)
            piece = Image.fromarray(photo[top : top + 96, left : left + 96])
            (tmp_path / name / f"{n:02d}.png").write_bytes(encode(piece))
    return tmp_path


def read(root: Path, **settings: object) -> ImageDataset:
    return ingest(DataConfig.model_validate({"source": "folder", "path": str(root), **settings}))


def validate(
    dataset: ImageDataset, reference: ImageDataset | None = None, **limits: object
) -> DataReport:
    split = split_dataset(dataset, SplitConfig())
    return validate_dataset(
        dataset.manifest,
        class_names=dataset.class_names,
        split=dict(split.items()),
        config=ValidationConfig.model_validate(limits),
        unreadable=[(u.id, u.reason) for u in dataset.unreadable],
        images=dataset.images,
        reference=Reference(reference.manifest, reference.class_names) if reference else None,
    )


def failed(report: DataReport) -> dict[str, str]:
    return {result.name: result.verdict for result in report.failures}


def test_real_photographs_pass(photos: Path) -> None:
    assert failed(validate(read(photos))) == {}


def test_the_same_picture_saved_again_in_another_part_is_found(photos: Path) -> None:
    for n in range(30):
        original = Image.open(photos / "china" / f"{n:02d}.png")
        again = original.resize((120, 120)).convert("RGB")
        (photos / "china" / f"again-{n:02d}.jpg").write_bytes(encode(again, "JPEG", quality=80))
    report = validate(read(photos), max_near_duplicate_share=0.05)
    (near,) = [result for result in report.failures if result.name == "near_duplicates"]
    assert near.verdict == "warning"
    assert near.n_offending >= 20
    assert all(name.startswith("china/") for name in near.offending_ids)
    strict = validate(
        read(photos), max_near_duplicate_share=0.05, severity={"near_duplicates": "error"}
    )
    assert not strict.ok
    silent = validate(
        read(photos), max_near_duplicate_share=0.0, severity={"near_duplicates": "off"}
    )
    assert "near_duplicates" not in {result.name for result in silent.expectations}


def test_a_group_in_two_parts_is_refused(photos: Path) -> None:
    dataset = read(photos)
    split = dict(split_dataset(dataset, SplitConfig()).items())
    manifest = dataset.manifest.copy()
    manifest["group"] = [f"g{n // 2}" for n in range(len(manifest))]
    report = validate_dataset(
        manifest, class_names=dataset.class_names, split=split, config=ValidationConfig()
    )
    assert failed(report)["no_group_leakage"] == "failed"
    manifest["group"] = ""
    report = validate_dataset(
        manifest, class_names=dataset.class_names, split=split, config=ValidationConfig()
    )
    assert report.ok


def test_offending_images_are_shown_on_a_page_that_needs_nothing_else(photos: Path) -> None:
    (photos / "flower" / "copy.png").write_bytes((photos / "china" / "00.png").read_bytes())
    (photos / "flower" / "black.png").write_bytes(encode(Image.new("RGB", (96, 96))))
    report = validate(read(photos), severity={"label_conflicts": "error"})
    assert failed(report)["label_conflicts"] == "failed"
    assert failed(report)["brightness"] == "warning"
    assert {"china/00.png", "flower/copy.png", "flower/black.png"} <= set(report.thumbnails)
    shown = Image.open(io.BytesIO(base64.b64decode(report.thumbnails["flower/black.png"])))
    assert shown.size == (96, 96)
    assert np.asarray(shown).max() == 0
    page = report.to_html()
    assert report.thumbnails["china/00.png"] in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_a_report_is_read_back_with_its_thumbnails(photos: Path, tmp_path: Path) -> None:
    (photos / "flower" / "copy.png").write_bytes((photos / "china" / "00.png").read_bytes())
    report = validate(read(photos))
    (tmp_path / "stored").mkdir()
    report.save(tmp_path / "stored")
    assert DataReport.load(tmp_path / "stored") == report


def test_a_dataset_is_compared_with_its_reference(photos: Path) -> None:
    reference = read(photos)
    assert failed(validate(reference, reference)) == {}
    for file in (photos / "china").glob("*.png"):
        dark = np.asarray(Image.open(file)) // 8
        file.write_bytes(encode(Image.fromarray(dark)))
    (photos / "china").rename(photos / "night")
    found = failed(validate(read(photos), reference))
    assert found["labels_as_reference"] == "failed"
    assert found["statistics_as_reference"] == "warning"
    assert found["class_shares_as_reference"] == "warning"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**12), st.integers(0, 2)), min_size=1, max_size=40),
    st.integers(0, 4),
)
def test_near_images_of_other_parts_are_found_as_by_comparing_all(
    rows: list[tuple[int, int]], distance: int
) -> None:
    hashes = np.array([bits * 0x0010_0400_8002_0001 % 2**64 for bits, _ in rows], np.uint64)
    parts = np.array([part for _, part in rows], np.int64)
    differing = np.bitwise_count(hashes[:, None] ^ hashes[None]).astype(int)
    expected = ((differing <= distance) & (parts[:, None] != parts[None])).any(axis=1)
    np.testing.assert_array_equal(has_cross_split_near_duplicate(hashes, parts, distance), expected)


def test_a_million_rows_can_be_judged_for_looks() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 1_000_000, dtype=np.uint64)
    hashes[:300_000] = 7  # blank pages
    found = has_cross_split_near_duplicate(hashes, pd.factorize(np.arange(10**6) % 3)[0], 2)
    assert found[:300_000].all()
