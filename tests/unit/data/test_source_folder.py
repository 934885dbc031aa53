"""A folder of images, here and behind fsspec: what is read, what is refused, and why."""

import errno
import logging
import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from cv_factory.config.data import DataConfig
from cv_factory.data.dataset import ImageDataset
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


def write_parts(root: Path, *folders: str) -> None:
    """Write four images into each of the folders."""
    for name in folders:
        (root / name).mkdir(parents=True)
        for n in range(4):
            (root / name / f"{n}.png").write_bytes(PNG)


@pytest.mark.parametrize(
    ("folders", "has_parts"),
    [
        (("Training", "Testing"), True),
        (("train", "eval", "annotations"), True),
        (("training_set", "test_set"), True),
        (("seg_train", "seg_test", "seg_pred"), True),
        (("train2017", "val2017"), True),
        (("hold-out", "train images"), True),
        (("train", "unlabeled"), True),
        (("test_tube", "training_shoe"), False),
        (("covid_test_positive", "covid_test_negative"), False),
        (("valid", "invalid"), False),
    ],
)
def test_folders_named_like_the_parts_of_a_split_are_not_taken_for_classes(
    tmp_path: Path, folders: tuple[str, ...], has_parts: bool
) -> None:
    write_parts(tmp_path, *(f"{part}/{name}" for part in folders for name in ("cat", "dog")))
    if not has_parts:
        assert open_source(folder(tmp_path)).class_names == tuple(sorted(folders))
        return
    with pytest.raises(DataError, match="look like a split, not like classes"):
        open_source(folder(tmp_path))
    # The message offers all three, and each of them works on this folder.
    first = ingest(folder(tmp_path / folders[0]))
    parts = ingest(folder(tmp_path, folder={"layout": "parts"}))
    classes = ingest(folder(tmp_path, folder={"layout": "classes"}))
    assert first.class_counts == {"cat": 4, "dog": 4}
    assert set(parts.manifest["official_split"]) <= {"train", "validation", "test"}
    assert parts.class_names == ("cat", "dog")
    assert classes.class_names == tuple(sorted(folders))


def test_one_class_may_be_named_like_a_part(tmp_path: Path) -> None:
    write_parts(tmp_path, "train", "bus/red", "bus/blue")
    assert ingest(folder(tmp_path)).class_counts == {"bus": 8, "train": 4}


def test_parts_without_class_folders_are_told_apart(tmp_path: Path) -> None:
    write_parts(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog", "test", "docs/cat")
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(DataError) as caught:
        open_source(folder(tmp_path))
    assert str(caught.value).splitlines() == [
        f"The subfolders of {tmp_path} look like a split, not like classes: test (no class "
        "folders), train (2 class folders), val (2 class folders).",
        f"  To train on one, which is divided anew: --set data.path={tmp_path}/train",
        "  To keep the parts: --set data.folder.layout=parts",
        "  To score the images without labels: --pipeline batch_inference with --set "
        f"data.path={tmp_path}/test",
        "  If they are classes: --set data.folder.layout=classes",
    ]
    dataset = ingest(folder(tmp_path, folder={"layout": "parts"}))
    assert dataset.manifest["official_split"].value_counts().to_dict() == {
        "train": 8,
        "validation": 8,
    }
    assert not dataset.unreadable
    assert dataset.notices == (
        "9 files outside of class folders left out: docs/cat/0.png, docs/cat/1.png, "
        "docs/cat/2.png and 6 more.",
    )
    with open_source(folder(tmp_path / "test"), labelled=False) as source:
        assert len(source) == 4


def test_classes_one_folder_deeper_are_found(tmp_path: Path) -> None:
    write_parts(tmp_path / "pets", "cat", "dog")
    with pytest.raises(DataError, match=f"pets has 2 subfolders: --set data.path={tmp_path}/pets"):
        open_source(folder(tmp_path))
    write_parts(
        tmp_path / "parts", *(f"seg_{p}/seg_{p}/{c}" for p in ("train", "test") for c in "ab")
    )
    deeper = tmp_path / "parts" / "seg_train" / "seg_train"
    with pytest.raises(DataError, match=f"divided anew: --set data.path={deeper}\n") as caught:
        open_source(folder(tmp_path / "parts"))
    assert "layout=parts" not in str(caught.value)


@pytest.mark.parametrize("layout", ["classes", "parts"])
def test_what_cannot_be_opened_is_unreadable_and_no_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    top = tmp_path if layout == "classes" else tmp_path / "train"
    write_parts(top, "cat", "dog", "owl")
    (top / "gone.png").symlink_to("nowhere")
    scandir = os.scandir

    def refuse_owl(path: bytes) -> object:
        if path == os.fsencode(top / "owl"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_owl)
    dataset = ingest(folder(tmp_path, folder={"layout": layout}, max_unreadable_share=0.5))
    assert [u.id.rpartition("/")[2] for u in dataset.unreadable] == ["gone.png", "owl"]
    assert dataset.class_names[:2] == ("cat", "dog")
    assert "gone.png" not in dataset.class_names
    assert ("owl" in dataset.class_names) == (layout == "classes")
    assert dataset.notices == ()


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone cannot be listed \(there is no such file\)"):
        LocalStore(str(tmp_path)).folders("gone")


def test_a_layout_of_parts_needs_a_part(tmp_path: Path) -> None:
    write_parts(tmp_path, "cat", "dog")
    with pytest.raises(DataError, match=r"no subfolder .* is named like a part .*: cat, dog"):
        open_source(folder(tmp_path, folder={"layout": "parts"}))


def test_files_of_operating_systems_are_no_images_of_any_source(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pets", per_class=6)
    names = ["disc/Thumbs.db", "disc/desktop.ini", "__MACOSX/disc/000.png", "@eaDir/x/1.jpg",
             "#recycle/disc/0.png", "disc/000.png:Zone.Identifier"]  # fmt: skip
    images = sorted(p.relative_to(tmp_path / "pets").as_posix() for p in tmp_path.rglob("*.png"))
    table = "".join(f"{name},{name.split('/')[0]}\n" for name in [*images, "disc/._0.png", *names])
    for name in names:
        (tmp_path / "pets" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "pets" / name).write_bytes(b"\xd0\xcf\x11\xe0")
    (tmp_path / "pets" / "labels.csv").write_text("image_path,label\n" + table)
    as_table = DataConfig(source="manifest", path=str(tmp_path / "pets" / "labels.csv"))
    for config, n in ((folder(tmp_path / "pets"), 6), (as_table, 7)):
        dataset = ingest(config)
        assert dataset.class_counts == {"disc": 6, "stripe": 6}
        assert dataset.notices[0].startswith(f"{n} files of the operating system left out")
    with open_source(folder(tmp_path / "pets"), labelled=False) as source:
        assert len(source) == 13  # and labels.csv


def test_an_empty_folder_is_no_class_and_one_class_alone_is_explained(tmp_path: Path) -> None:
    write_parts(tmp_path, "cat", "dog")
    (tmp_path / "owl").mkdir()
    dataset = ingest(folder(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.notices == ("1 empty folder left out: owl.",)
    for file in (tmp_path / "dog").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"one class 'cat'.*2 empty folders left out: dog, owl"):
        open_source(folder(tmp_path))


def test_small_classes_are_left_out_by_a_setting(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=6)
    write_parts(tmp_path, "rare")
    config = folder(tmp_path, drop_classes_below=5)
    dataset = ingest(config)
    assert dataset.class_counts == {"disc": 6, "stripe": 6}
    assert dataset.notices == (
        "1 class with fewer than 5 images left out (data.drop_classes_below): rare (4).",
    )
    with open_source(config, labelled=False) as source:
        assert len(source) == 16
    with pytest.raises(DataError, match=r"fewer than two classes .* disc \(6\), rare \(4\)"):
        open_source(folder(tmp_path, drop_classes_below=7))
    with pytest.raises(DataError, match="sources that list their images"):
        open_source(DataConfig(drop_classes_below=5))


def test_links_out_of_the_folder_are_followed_where_a_setting_says_so(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "store", per_class=6)
    write_class_folders(tmp_path / "files", per_class=0)
    (tmp_path / "folders").mkdir()
    for name in ("disc", "stripe"):
        (tmp_path / "folders" / name).symlink_to(tmp_path / "store" / name)
        for image in (tmp_path / "store" / name).iterdir():
            (tmp_path / "files" / name / image.name).symlink_to(image)
    with pytest.raises(DataError, match=r"\(disc, stripe\): --set data\.follow_links=true reads"):
        open_source(folder(tmp_path / "folders"))
    parts = tmp_path / "parts"
    (parts / "train").mkdir(parents=True)
    (parts / "test").symlink_to(tmp_path / "store")
    (parts / "train" / "disc").symlink_to(tmp_path / "store" / "disc")
    (parts / "train" / "stripe").symlink_to(tmp_path / "store" / "stripe")
    by_part = {"folder": {"layout": "parts"}}
    with pytest.raises(DataError, match=r"\(test, train/disc, train/stripe\): --set data\.follow"):
        open_source(folder(parts, **by_part))
    assert len(ingest(folder(parts, **by_part, follow_links=True))) == 24
    for name in ("folders", "files"):
        dataset = ingest(folder(tmp_path / name, follow_links=True))
        assert dataset.class_counts == {"disc": 6, "stripe": 6}
        assert (dataset.notices, dataset.unreadable) == ((), ())
    (tmp_path / "files" / "labels.csv").write_text(
        "image_path,label\ndisc/000.png,disc\nstripe/000.png,stripe\n"
    )
    table = {"source": "manifest", "path": str(tmp_path / "files" / "labels.csv")}
    linked = DataConfig.model_validate({**table, "follow_links": True})
    assert len(ingest(linked)) == 2


def test_links_in_a_circle_are_not_walked_for_ever(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=6)
    (tmp_path / "disc" / "all").symlink_to(tmp_path)
    (tmp_path / "all").symlink_to(tmp_path)
    (tmp_path / "disc" / "other").symlink_to(tmp_path / "stripe")
    (tmp_path / "stripe" / "other").symlink_to(tmp_path / "disc")
    (tmp_path / "disc" / "loop.png").symlink_to(tmp_path / "disc" / "loop.png")
    dataset = ingest(folder(tmp_path, follow_links=True, max_unreadable_share=0.1))
    assert {u.reason for u in dataset.unreadable} == {"Too many levels of symbolic links"}
    # Each class also holds the other one through its link, and goes no further.
    assert dataset.class_counts == {"disc": 12, "stripe": 12}
    assert dataset.notices[-1].startswith("5 linked folders left out (a circle of links): ")


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
    with open_source(folder(tmp_path / "shapes")) as source:
        assert source.notices == (
            "1 linked folder left out (data.follow_links=true follows the link): disc/linked.",
        )
    found = reasons(folder(tmp_path / "shapes", max_bytes=100_000))
    assert found == {
        "disc/pipe.png": "not a regular file",
        "disc/out.png": "a symbolic link that leaves the folder (data.follow_links=true follows "
        "it)",
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
    dataset = ingest(folder(tmp_path))
    assert len(dataset) == 4
    assert dataset.notices == ("1 file outside of class folders left out: labels.csv.",)
    assert dataset.notices[0] in caplog.text
    (tmp_path / "stored").mkdir()
    dataset.save(tmp_path / "stored")
    assert ImageDataset.load(tmp_path / "stored").notices == dataset.notices


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
