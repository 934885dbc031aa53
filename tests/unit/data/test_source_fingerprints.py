"""Fingerprints of sources change with whatever the outcome of ``ingest`` depends on."""

import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from cli.preparation import fingerprint_source
from cv_factory.config.data import DataConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.sources import open_source
from tests.support.images import encode, scene, write_class_folders

OTHER = encode(Image.fromarray(255 - scene()))


def read_source(config: DataConfig) -> tuple[str, bool]:
    with open_source(config) as source:
        return source.fingerprint(), source.has_versions


def folder(root: Path) -> DataConfig:
    return DataConfig(source="folder", path=str(root))


def manifest(root: Path) -> DataConfig:
    table = root / "labels.csv"
    if not table.exists():
        images = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.png"))
        rows = [f"{image},{image.split('/')[0]}\n" for image in images]
        table.write_text("image_path,label\n" + "".join(rows))
    return DataConfig(source="manifest", path=str(table))


def sql(root: Path, images: str = "file AS image_path") -> DataConfig:
    database = root / "images.db"
    if not database.exists():
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE pictures (id, file, label, pixels BLOB)")
            for path in sorted(root.rglob("*.png")):
                name = path.relative_to(root).as_posix()
                row = (name, name, path.parent.name, path.read_bytes())
                connection.execute("INSERT INTO pictures VALUES (?, ?, ?, ?)", row)
        connection.close()
    section = {"url": f"sqlite:///{database}", "root": str(root), "columns": {"id": "id"}}
    query = f"SELECT id, {images}, label FROM pictures"
    return DataConfig.model_validate({"source": "sql", "sql": {**section, "query": query}})


def dvc(root: Path) -> DataConfig:
    from dvc.repo import Repo

    repository = root.parent
    if not (repository / ".git").exists():
        subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
        with Repo.init(str(repository)) as repo:
            repo.add(str(root))
    section = {"repo": str(repository)}
    return DataConfig.model_validate({"source": "dvc", "path": root.name, "dvc": section})


def overwrite_keeping_the_size(image: Path) -> None:
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.unlink()  # DVC may have linked it to its cache
    image.write_bytes(content)
    os.utime(image, ns=(0, 1))


@pytest.mark.parametrize("make", [folder, manifest, sql, dvc])
def test_an_image_that_is_overwritten_changes_the_fingerprint(
    make: Callable[[Path], DataConfig], tmp_path: Path
) -> None:
    root = tmp_path / "images"
    write_class_folders(root, per_class=3)
    before = read_source(make(root))
    assert before == read_source(make(root)), "the same again"
    assert before[1], "the source tells when an image changes"
    overwrite_keeping_the_size(root / "disc" / "001.png")
    overwritten, _ = read_source(make(root))
    assert overwritten != before[0]
    (root / "disc" / "001.png").unlink()
    assert read_source(make(root))[0] not in (before[0], overwritten)


def test_an_empty_folder_is_no_class_and_changes_the_fingerprint(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "local", per_class=3)
    (tmp_path / "local" / "empty").mkdir()
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "local"), "/with-empty", recursive=True)
    memory.makedirs("/with-empty/empty", exist_ok=True)
    for root, remove in (
        (tmp_path / "local", lambda: (tmp_path / "local" / "empty").rmdir()),
        ("memory://with-empty", lambda: memory.rmdir("/with-empty/empty")),
    ):
        config = DataConfig(source="folder", path=str(root))
        dataset, before = ingest(config), read_source(config)
        assert dataset.notices == ("1 empty folder left out: empty.",)
        assert dataset.class_names == ("disc", "stripe")
        remove()
        assert ingest(config).notices == ()
        assert read_source(config)[0] != before[0]


def test_what_can_be_read_again_changes_the_fingerprint(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=3)
    image, link = tmp_path / "disc" / "000.png", tmp_path / "disc" / "link.png"
    link.symlink_to(tmp_path / ".hidden.png")
    states = [read_source(folder(tmp_path))[0]]
    image.chmod(0)
    states.append(read_source(folder(tmp_path))[0])
    image.chmod(0o644)
    (tmp_path / ".hidden.png").write_bytes(OTHER)
    states.append(read_source(folder(tmp_path))[0])
    overwrite_keeping_the_size(tmp_path / ".hidden.png")
    states.append(read_source(folder(tmp_path))[0])
    assert len(set(states)) == len(states)


def test_an_object_that_no_listing_shows_changes_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/unlisted/labels.csv", b"image_path,label\n.thumbs/0.png,disc\n./1.png,stripe\n")
    for name in (".thumbs/0.png", "1.png"):
        memory.pipe(f"/unlisted/{name}", encode(Image.fromarray(scene())))
    config = DataConfig(source="manifest", path="memory://unlisted/labels.csv")
    states = [read_source(config)]
    memory.pipe("/unlisted/.thumbs/0.png", OTHER)
    states.append(read_source(config))
    memory.rm("/unlisted/.thumbs/0.png")
    states.append(read_source(config))
    assert len(set(states)) == len(states)
    assert all(has_versions for _, has_versions in states)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("ListBucket is not allowed")

    monkeypatch.setattr(type(memory), "walk", refuse)
    assert not read_source(config)[1], "readable, and never cached"


def test_a_source_that_cannot_tell_is_never_cached_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_class_folders(tmp_path, per_class=3)
    in_database = sql(tmp_path, "pixels AS image_path")
    assert not read_source(in_database)[1]
    assert fingerprint_source(in_database) != fingerprint_source(in_database)
    assert "Step ingest is not cached: database sqlite" in capsys.readouterr().err
    assert fingerprint_source(sql(tmp_path)) == fingerprint_source(sql(tmp_path))
    assert capsys.readouterr().err == ""


def test_a_set_of_torchvision_that_changes_on_disk_has_another_fingerprint(tmp_path: Path) -> None:
    from tests.unit.data.test_source_torchvision import set_of, write_mnist

    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw)
    before = read_source(set_of(tmp_path, "mnist"))
    assert before == read_source(set_of(tmp_path, "mnist"))
    file = raw / "train-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    file.write_bytes(content)
    assert read_source(set_of(tmp_path, "mnist"))[0] != before[0]


def test_a_set_of_torchvision_without_one_of_its_files_has_a_fingerprint(tmp_path: Path) -> None:
    from tests.unit.data.test_source_torchvision import set_of

    folder = tmp_path / "eurosat" / "2750" / "Forest"
    folder.mkdir(parents=True)
    (folder / "Forest_1.jpg").write_bytes(OTHER)
    (folder / "Forest_2.jpg").symlink_to(tmp_path / "missing.jpg")
    config = set_of(tmp_path, torchvision={"name": "EuroSAT", "download": False})
    before = read_source(config)
    (tmp_path / "missing.jpg").write_bytes(OTHER)
    assert read_source(config)[0] != before[0]
