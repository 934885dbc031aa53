"""Pictures of earlier processes: shown again while nothing that draws has changed."""

import os
from pathlib import Path

import pytest

from cv_factory.code_fingerprint import source_files
from cv_factory.evaluation.plots import picture_cache, style
from cv_factory.evaluation.plots.picture_cache import drawing_version, read_picture, store_picture

PNG = b"\x89PNG...IEND\xaeB`\x82"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "cv-factory" / "pictures"


def test_a_stored_picture_is_read_until_what_draws_changes(monkeypatch):
    monkeypatch.setattr(style, "read_picture", read_picture)
    drawn = []

    @style.draw_once
    def plot(value):
        drawn.append(value)
        return PNG

    for value in (1, 1, 2):
        style.forget_drawn()  # as another process
        assert plot(value) == PNG
    assert drawn == [1, 2]
    style.forget_drawn()
    monkeypatch.setattr(style, "drawing_version", lambda module: f"another {module}")
    plot(1)
    assert drawn == [1, 2, 1]


def test_what_draws_is_a_module_with_all_that_it_imports(monkeypatch):
    monkeypatch.setattr(picture_cache, "code_fingerprint", lambda module: source_files(module))
    version = drawing_version.__wrapped__("cv_factory.evaluation.plots.curves")
    monkeypatch.setattr(picture_cache, "code_fingerprint", lambda module: ())
    assert version != drawing_version.__wrapped__("cv_factory.evaluation.plots.curves")
    modules = source_files("cv_factory.evaluation.plots.curves")
    assert "cv_factory/evaluation/metric_functions.py" in modules


def test_a_user_without_a_home_folder_has_no_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", _raise_runtime_error)
    store_picture("key", PNG)
    assert read_picture("key") is None
    assert not Path("relative").exists()


def _raise_runtime_error():
    raise RuntimeError("Could not determine home directory.")


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
