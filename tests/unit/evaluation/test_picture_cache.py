"""Pictures of earlier processes: shown again while nothing that draws has changed."""

import os
from pathlib import Path

import pytest

from cv_factory.evaluation.plots import picture_cache
from cv_factory.evaluation.plots.picture_cache import read_picture, store_picture

PNG = b"\x89PNG...IEND\xaeB`\x82"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "cv-factory" / "pictures"


def test_a_stored_picture_is_read_until_what_draws_changes(monkeypatch):
    assert read_picture("key") is None
    store_picture("key", PNG)
    assert read_picture("key") == PNG
    assert read_picture("another key") is None
    monkeypatch.setattr(picture_cache, "_code_version", lambda: "another matplotlib")
    assert read_picture("key") is None


def test_a_damaged_file_and_a_folder_that_cannot_be_written_are_as_without_a_cache(folder):
    store_picture("key", PNG)
    (file,) = folder.iterdir()
    file.write_bytes(PNG[:-3])
    assert read_picture("key") is None
    file.unlink()
    folder.rmdir()
    folder.touch()
    store_picture("key", PNG)
    assert read_picture("key") is None


def test_the_oldest_make_room(folder, monkeypatch):
    monkeypatch.setattr(picture_cache, "_MAX_FILES", 4)
    for i in range(5):
        store_picture(str(i), PNG)
        for path in folder.iterdir():
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    assert [read_picture(str(i)) is not None for i in range(5)] == [False, False, True, True, True]
