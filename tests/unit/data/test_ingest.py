"""From files to a dataset: what is read, what is left out, what stops the run."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from cv_factory.artifacts.npy_stream import NpyStreamWriter
from cv_factory.config.data import DataConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.decode import ImageHeader, decode, read_header
from cv_factory.data.ingest import ingest
from cv_factory.data.reading import sample_positions
from cv_factory.data.sources import open_source
from cv_factory.errors import ArtifactError, DataError
from tests.support.images import encode, scene, write_class_folders


def folder_config(root: Path, **settings: object) -> DataConfig:
    return DataConfig.model_validate({"source": "folder", "path": str(root), **settings})


def test_digits_keep_their_pixels_and_labels() -> None:
    from sklearn.datasets import load_digits

    dataset = ingest(DataConfig())
    digits = load_digits()
    assert dataset.images.shape == (1797, 8, 8, 1)
    np.testing.assert_array_equal(dataset.labels, digits.target)
    np.testing.assert_array_equal(np.rint(dataset.images[..., 0] / (255 / 16)), digits.images)


def test_a_folder_becomes_a_dataset_with_labels_by_subfolder(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "shapes")
    dataset = ingest(folder_config(tmp_path / "shapes"))
    assert dataset.class_names == ("disc", "stripe")
    assert dataset.class_counts == {"disc": 30, "stripe": 30}
    assert dataset.image_shape == (12, 12, 3)
    row = dataset.manifest.iloc[31]
    assert row["id"] == "stripe/001.png"
    expected = np.asarray(Image.open(tmp_path / "shapes" / row["id"]))
    np.testing.assert_array_equal(dataset.images[31], expected)


def test_a_dataset_is_read_back_mapped_and_equal(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "shapes")
    dataset = ingest(folder_config(tmp_path / "shapes"))
    (tmp_path / "stored").mkdir()
    dataset.save(tmp_path / "stored")
    loaded = ImageDataset.load(tmp_path / "stored", verify=True)
    assert isinstance(loaded.images, np.memmap)
    assert loaded.content_hash == dataset.content_hash
    np.testing.assert_array_equal(loaded.images, dataset.images)


def test_an_array_of_another_shape_than_its_header_is_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "shapes")
    dataset = ingest(folder_config(tmp_path / "shapes"))
    (tmp_path / "stored").mkdir()
    dataset.save(tmp_path / "stored")
    header = (tmp_path / "stored" / "dataset.json").read_text()
    (tmp_path / "stored" / "dataset.json").write_text(header.replace("12,", "13,", 1))
    with pytest.raises(ArtifactError, match=r"images\.npy"):
        ImageDataset.load(tmp_path / "stored")


def test_the_fingerprint_is_blind_to_order_but_not_to_a_pixel_or_label(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "a")
    dataset = ingest(folder_config(tmp_path / "a"))
    reverse = np.arange(len(dataset))[::-1]
    turned = ImageDataset(
        dataset.images[reverse], dataset.manifest.iloc[reverse], dataset.class_names, "reversed"
    )
    assert turned.fingerprint == dataset.fingerprint
    assert turned.content_hash != dataset.content_hash
    relabelled = dataset.manifest.copy()
    relabelled.loc[0, "label"] = 1
    other = ImageDataset(dataset.images, relabelled, dataset.class_names, dataset.source)
    assert other.fingerprint != dataset.fingerprint


def test_few_unreadable_images_are_left_out_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_class_folders(tmp_path / "shapes")
    (tmp_path / "shapes" / "disc" / "broken.png").write_bytes(b"no image")
    dataset = ingest(folder_config(tmp_path / "shapes", max_unreadable_share=0.02))
    assert len(dataset) == 60
    (left_out,) = dataset.unreadable
    assert left_out.source.endswith("disc/broken.png")
    assert "broken.png" in caplog.text


def test_more_unreadable_images_than_allowed_stop_the_run_with_their_list(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "shapes")
    for number in range(3):
        (tmp_path / "shapes" / "disc" / f"broken{number}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        ingest(folder_config(tmp_path / "shapes"))
    message = str(caught.value)
    assert "3 of 63 images (4.8%)" in message
    assert "broken0.png: the file is empty" in message
    assert "data.max_unreadable_share" in message


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "shapes")
    secret = tmp_path / "secret.png"
    secret.write_bytes(encode(Image.fromarray(scene())))
    (tmp_path / "shapes" / "disc" / "link.png").symlink_to(secret)
    dataset = ingest(folder_config(tmp_path / "shapes", max_unreadable_share=0.1))
    (link,) = dataset.unreadable
    assert link.reason == (
        "a symbolic link that leaves the folder (data.follow_links=true follows it)"
    )


def test_images_of_many_sizes_become_squares_of_one_side(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "shapes")
    (tmp_path / "shapes" / "disc" / "large.png").write_bytes(encode(Image.fromarray(scene())))
    assert ingest(folder_config(tmp_path / "shapes")).image_shape == (64, 64, 3)
    assert ingest(folder_config(tmp_path / "shapes", side=96)).image_shape == (96, 96, 3)
    configured = folder_config(tmp_path / "shapes", height=16, width=20, channels=1)
    assert ingest(configured).image_shape == (16, 20, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_sideways_images_keep_their_upright_size(tmp_path: Path, kind: str) -> None:
    upright = Image.fromarray(scene(height=24, width=40))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = encode(upright.transpose(Image.Transpose.ROTATE_90), kind, exif=exif)
    assert read_header(stored) == ImageHeader(40, 24, "RGB")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1").write_bytes(stored)
    dataset = ingest(folder_config(tmp_path))
    assert dataset.image_shape == (24, 40, 3)
    assert dataset.manifest[["width", "height"]].to_numpy().tolist() == [[40, 24]] * 2
    error = np.abs(dataset.images[0].astype(int) - np.asarray(upright)).mean()
    assert error < 15, "JPEG and WEBP lose a little"


def test_an_orientation_behind_the_pixels_of_a_png_is_applied_to_its_size() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = encode(Image.fromarray(scene(height=40, width=24)), exif=exif)
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    moved = content[:start] + content[end:last] + content[start:end] + content[last:]
    header = decode(moved, height=8, width=8, channels=3, max_pixels=10**6).header
    assert (header.width, header.height) == (40, 24)


def test_images_that_the_sample_did_not_show_are_noticed(tmp_path: Path) -> None:
    unseen = sorted(set(range(300)) - set(sample_positions(300, 200).tolist()))[:2]
    for name in ("clear", "stain"):
        (tmp_path / name).mkdir()
    for n in range(300):
        image = Image.new("RGB", (8, 9)) if n in unseen else Image.new("L", (8, 8))
        name = f"{'clear' if n < 150 else 'stain'}/{n:03d}.png"
        (tmp_path / name).write_bytes(encode(image))
    dataset = ingest(folder_config(tmp_path))
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.notices == (
        "2 of 300 images are in colour and were made grey, since the channels were inferred from "
        "a sample of grey ones; data.channels=3 keeps the colours.",
        "2 of 300 images are not 8x8, which was inferred from a sample, and were resized; "
        "data.height and data.width set another size.",
    )
    assert ingest(folder_config(tmp_path, height=8, width=8, channels=1)).notices == ()
    assert ingest(folder_config(tmp_path, channels=3, height=4, width=4)).notices == ()


def test_a_limit_spreads_over_the_source(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "shapes")
    dataset = ingest(folder_config(tmp_path / "shapes", limit=10))
    assert dataset.class_counts == {"disc": 5, "stripe": 5}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.mkdir(), "has no subfolder"),
        (lambda root: (root / "cat").mkdir(parents=True), "has the one class 'cat'"),
        (lambda root: [(root / n).mkdir(parents=True) for n in "ab"], "holds no images"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path, make: object, message: str) -> None:
    assert callable(make)
    make(tmp_path / "images")
    with pytest.raises(DataError, match=message):
        open_source(folder_config(tmp_path / "images"))


def test_a_source_fingerprint_notices_a_changed_file(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "shapes")
    config = folder_config(tmp_path / "shapes")
    before = open_source(config).fingerprint()
    assert open_source(config).fingerprint() == before
    (tmp_path / "shapes" / "disc" / "new.png").write_bytes(encode(Image.fromarray(scene())))
    assert open_source(config).fingerprint() != before


def test_a_streamed_array_equals_a_saved_one(tmp_path: Path) -> None:
    array = np.arange(7 * 3 * 2, dtype=np.uint8).reshape(7, 3, 2)
    with NpyStreamWriter(tmp_path / "a.npy", (3, 2), np.uint8) as writer:
        writer.append(array[:4])
        writer.append(array[4:])
        with pytest.raises(ValueError, match="expected uint8 rows"):
            writer.append(array.astype(np.int16))
    np.save(tmp_path / "b.npy", array)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
