"""Damaged, foreign and hostile artifact directories are refused, and execute nothing."""

import errno
import json
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cv_factory.artifacts import files
from cv_factory.artifacts.arrays import load_array, load_npz, load_tensors
from cv_factory.artifacts.files import (
    checksum_array,
    file_lock,
    read_header,
    verify_files,
    write_atomic,
    write_header,
)
from cv_factory.artifacts.npy_stream import save_array
from cv_factory.errors import ArtifactError


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (_explode, (str(self.marker),))


def _explode(marker: str) -> None:
    Path(marker).write_text("executed")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    directory = tmp_path / "artifact"
    directory.mkdir()
    (directory / "data.bin").write_bytes(b"content")
    write_header(directory, "thing", 1, {"answer": 42}, {"data.bin": None})
    return directory


def test_a_header_is_read_back(artifact: Path) -> None:
    assert read_header(artifact, "thing", 1) == {"answer": 42}


def test_an_unfinished_artifact_is_refused(artifact: Path) -> None:
    (artifact / "thing.json").unlink()
    with pytest.raises(ArtifactError, match=r"thing\.json does not exist.*incomplete"):
        read_header(artifact, "thing", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"changed", "checksum"),
        (b"longer content", "14 bytes"),
        (None, "missing"),
    ],
)
def test_a_changed_file_is_refused(artifact: Path, content: bytes | None, message: str) -> None:
    if content is None:
        (artifact / "data.bin").unlink()
    else:
        (artifact / "data.bin").write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"data\.bin.*{message}"):
        read_header(artifact, "thing", 1)


@pytest.mark.parametrize("is_contiguous", [True, False])
@pytest.mark.parametrize(("limit", "algorithm"), [(10, "xxh3_128"), (10_000, "sha256")])
def test_a_large_array_has_a_faster_checksum_that_finds_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, algorithm: str, is_contiguous: bool
) -> None:
    monkeypatch.setattr(files, "SMALL_FILE_BYTES", limit)
    array = np.arange(3000, dtype=np.int16).reshape(10, 300)
    checksum = save_array(tmp_path / "a.npy", array if is_contiguous else array[:, ::-1])
    assert checksum == checksum_array(tmp_path / "a.npy")
    write_header(tmp_path, "thing", 1, {}, {"a.npy": checksum})
    entry = json.loads((tmp_path / "thing.json").read_text())["files"]["a.npy"]
    assert sorted(entry) == sorted([algorithm, "size"])
    read_header(tmp_path, "thing", 1, verify_large=True)
    content = bytearray((tmp_path / "a.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ArtifactError, match="does not match its checksum"):
        verify_files(tmp_path, "thing")


def test_a_large_array_with_a_checksum_of_the_last_release_is_verified(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SMALL_FILE_BYTES", 1)
    assert "sha256" in json.loads((artifact / "thing.json").read_text())["files"]["data.bin"]
    verify_files(artifact, "thing")


def test_a_future_version_is_refused_and_named(artifact: Path) -> None:
    header = json.loads((artifact / "thing.json").read_text())
    header["format_version"] = 7
    (artifact / "thing.json").write_text(json.dumps(header))
    with pytest.raises(ArtifactError, match=r"thing\.json has format version 7.*reads version 1"):
        read_header(artifact, "thing", 1)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b"])
def test_a_file_name_that_leaves_the_directory_is_refused(artifact: Path, name: str) -> None:
    header = json.loads((artifact / "thing.json").read_text())
    header["files"] = {name: {"size": 1, "sha256": "0" * 64}}
    (artifact / "thing.json").write_text(json.dumps(header))
    with pytest.raises(ArtifactError, match="no plain file name"):
        read_header(artifact, "thing", 1)


@pytest.mark.parametrize("content", [b"\x80\x04nonsense", b"[]", b"{}", b'{"kind": "other"}'])
def test_a_header_that_is_none_is_refused(artifact: Path, content: bytes) -> None:
    (artifact / "thing.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"thing\.json"):
        read_header(artifact, "thing", 1)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_a_pickle_under_our_file_names_is_refused_and_not_executed(
    tmp_path: Path, suffix: str
) -> None:
    marker, hostile = tmp_path / "marker", tmp_path / f"hostile{suffix}"
    hostile.write_bytes(pickle.dumps(Bomb(marker)))
    loaders: dict[str, Callable[[Path], object]] = {
        ".npy": load_array,
        ".npz": lambda file: load_npz(file, ("a",)),
        ".safetensors": load_tensors,
    }
    with pytest.raises(ArtifactError, match="hostile"):
        loaders[suffix](hostile)
    assert not marker.exists()
    pickle.loads(hostile.read_bytes())
    assert marker.exists(), "the bomb must work, or this test shows nothing"


def test_files_written_at_the_same_time_are_whole_and_leave_nothing(tmp_path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_atomic(tmp_path / "state", content), contents * 4))
    assert (tmp_path / "state").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_what_cannot_be_written_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(tmp_path / "state", b"before", mode=0o600)
    monkeypatch.setattr(os, "fsync", _fail_for_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "state", b"after")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600


def _fail_for_space(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_changes_under_the_lock_are_not_lost(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def increment(_number: int) -> None:
        with file_lock(counter):
            write_atomic(counter, str(int(counter.read_text()) + 1).encode())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(64)))
    assert counter.read_text() == "64"
