"""A folder of images, here and behind fsspec: what is read, what is refused, and why."""

import logging
import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from cv_factory.config.data import DataConfig
from cv_factory.data.ingest import ingest, ingest_source
from cv_factory.data.sources import open_source
from cv_factory.data.storage.stores import LocalStore, check_relative
from cv_factory.errors import DataError, ImageError
from tests.support.images import encode, scene, write_class_folders

PNG = encode(Image.fromarray(scene()))


def folder(path: object, **settings: object) -> DataConfig:
    return DataConfig.model_validate({"source": "folder", "path": str(path), **settings})


def reasons(config: DataConfig) -> dict[str, str]:
    dataset = ingest(config.model_copy(update={"max_unreadable_share": 0.9}))
    return {u.id: u.reason for u in dataset.unreadable}


def test_classes_split_and_group_are_read_off_the_file_names(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for n in range(4):
            name = f"{split}/{'cat' if n % 2 else 'dog'}_p{n // 2}_{n}.png"
            (tmp_path / split).mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(PNG)
    pattern = r"(?P<split>\w+)/(?P<label>cat|dog)_(?P<group>p\d)_\d+\.png"
    dataset = ingest(folder(tmp_path, folder={"pattern": pattern}))
    assert dataset.class_counts == {"cat": 6, "dog": 6}
    row = dataset.manifest.set_index("id").loc["val/dog_p1_2.png"]
    assert (row["official_split"], row["group"]) == ("validation", "p1")


def test_a_file_that_does_not_match_the_pattern_is_left_out_with_its_reason(tmp_path: Path) -> None:
    for name in ("cat_1.png", "dog_1.png", "README.md"):
        (tmp_path / name).write_bytes(PNG)
    config = folder(tmp_path, folder={"pattern": r"(?P<label>\w+)_\d+\.png"})
    assert reasons(config) == {"README.md": "its path does not match data.folder.pattern"}


def test_folders_named_train_and_test_are_not_taken_for_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"look like a split.*data\.folder\.pattern=\(\?P<split>"):
        open_source(folder(tmp_path))


def test_nothing_in_a_class_folder_is_dropped_silently(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "shapes", per_class=4)
    disc = tmp_path / "shapes" / "disc"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.png").write_bytes(PNG)
    os.mkfifo(disc / "pipe.png")
    (disc / "linked").symlink_to(outside)
    (disc / "out.png").symlink_to(outside / "x.png")
    (disc / "gone.png").symlink_to(disc / "nowhere.png")
    (disc / "inside.png").symlink_to(disc / "000.png")
    (disc / "loop.png").symlink_to(disc / "loop.png")
    (disc / "empty.png").touch()
    (disc / "huge.png").write_bytes(b"\0" * 200_000)
    found = reasons(folder(tmp_path / "shapes", max_bytes=100_000))
    assert found == {
        "disc/pipe.png": "not a regular file",
        "disc/linked": "a symbolic link to a folder, which is not followed",
        "disc/out.png": "a symbolic link that leaves the folder",
        "disc/gone.png": "there is no such file",
        "disc/loop.png": "Too many levels of symbolic links",
        "disc/empty.png": "the file is empty",
        "disc/huge.png": "200000 bytes are more than the 100000 allowed",
    }


def test_what_changes_between_listing_and_reading_is_left_out(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=4)
    config = folder(tmp_path, max_unreadable_share=0.5)
    with open_source(config) as source:
        (tmp_path / "disc" / "000.png").unlink()
        (tmp_path / "disc" / "001.png").write_bytes(b"")
        (tmp_path / "disc" / "002.png").unlink()
        (tmp_path / "disc" / "002.png").mkdir()
        dataset = ingest_source(source, config)
    assert {u.id: u.reason for u in dataset.unreadable} == {
        "disc/000.png": "there is no such file",
        "disc/001.png": "the file is empty",
        "disc/002.png": "not a regular file",
    }
    assert dataset.class_counts == {"disc": 1, "stripe": 4}


def test_files_beside_the_class_folders_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_class_folders(tmp_path, per_class=2)
    (tmp_path / "labels.csv").write_text("")
    assert len(open_source(folder(tmp_path))) == 4
    assert "labels.csv" in caplog.text


def test_a_name_that_is_no_utf8_is_read_and_printable(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=2)
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/disc")) / os.fsdecode(b"caf\xe9.png")).write_bytes(
        PNG
    )
    dataset = ingest(folder(tmp_path))
    assert r"disc/caf\xe9.png" in set(dataset.manifest["id"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("\\\\host\\share", "absolute"),
        ("C:\\x.png", "absolute"),
        ("~/x.png", "absolute"),
        ("a/../../x.png", "climbs"),
        ("..\\x.png", "climbs"),
        ("a\0b", "null"),
        ("", "no image"),
    ],
)
def test_a_name_that_leads_out_of_the_root_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        check_relative(name)


def test_a_folder_that_becomes_a_link_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(ImageError, match="leaves the folder"):
        LocalStore(str(tmp_path / "root")).read(b"link/secret.png", 10**6)


def test_a_bucket_gives_the_dataset_that_the_folder_gives(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=5)
    memory = fsspec.filesystem("memory")
    for file in tmp_path.rglob("*.png"):
        memory.pipe(f"/pets/{file.relative_to(tmp_path)}", file.read_bytes())
    memory.pipe("/pets/disc/.hidden", b"x")
    local, remote = ingest(folder(tmp_path)), ingest(folder("memory://pets"))
    assert remote.fingerprint == local.fingerprint
    np.testing.assert_array_equal(remote.images, local.images)
    assert remote.manifest["source"][0].startswith("memory://pets/disc/")
    via_url = ingest(folder(f"file://{tmp_path}"))
    assert via_url.fingerprint == local.fingerprint


def test_the_fingerprint_of_a_bucket_notices_a_changed_object() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a/1.png", "b/1.png"):
        memory.pipe(f"/changing/{name}", PNG)
    before = open_source(folder("memory://changing")).fingerprint()
    memory.pipe("/changing/a/1.png", PNG + b"\0")
    assert open_source(folder("memory://changing")).fingerprint() != before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("memory://nothing-there", "does not exist"),
        ("https://example.org/x", "data.source=http"),
        ("nosuchscheme://x", "cannot be opened"),
    ],
)
def test_an_address_that_cannot_be_listed_is_explained(path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(folder(path))
