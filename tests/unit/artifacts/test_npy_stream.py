"""Space for large arrays is reserved where the system can, and never in a way that fails a save."""

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cv_factory.artifacts import npy_stream
from cv_factory.artifacts.files import ArrayChecksum, checksum_array
from cv_factory.artifacts.npy_stream import save_array
from cv_factory.config.data import DataConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.ingest import ingest
from cv_factory.errors import ArtifactError, describe_system_error

ARRAY = np.arange(2**19, dtype=np.uint32).reshape(512, 1024)


@pytest.fixture(autouse=True)
def small_arrays_are_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy_stream, "_MIN_RESERVED_BYTES", 1)


def answer(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(npy_stream, "_fallocate", lambda *_: number)


@pytest.mark.parametrize("name", ["EINVAL", "ENOSYS", "EOPNOTSUPP", "EINTR", "EPERM"])
def test_an_array_is_stored_where_no_space_can_be_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    answer(monkeypatch, getattr(errno, name))
    checksum = save_array(tmp_path / "a.npy", ARRAY)
    assert checksum == checksum_array(tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), ARRAY)


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT"])
def test_a_full_disk_is_named_and_leaves_no_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    answer(monkeypatch, getattr(errno, name))
    dataset = ingest(DataConfig(limit=20))
    with pytest.raises(OSError, match=os.strerror(getattr(errno, name))) as caught:
        replace(dataset, backing=None).save(tmp_path)
    message = describe_system_error(caught.value)
    assert message is not None
    assert message.startswith(f"{tmp_path / 'images.npy'}: ")
    assert "free some space" in message
    with pytest.raises(ArtifactError, match="incomplete"):
        ImageDataset.load(tmp_path)


def test_reserved_space_is_no_part_of_the_file_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(ArrayChecksum):
        def update(self, content: bytes | memoryview) -> None:
            if len(content) == npy_stream._CHUNK_BYTES:
                raise KeyboardInterrupt

    save_array(tmp_path / "whole.npy", ARRAY)
    np.testing.assert_array_equal(np.load(tmp_path / "whole.npy"), ARRAY)
    monkeypatch.setattr(npy_stream, "ArrayChecksum", Killed)
    with pytest.raises(KeyboardInterrupt):
        save_array(tmp_path / "part.npy", ARRAY)
    header = (tmp_path / "part.npy").stat().st_size
    assert (tmp_path / "whole.npy").stat().st_size == header + ARRAY.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="fallocate is Linux's")
def test_linux_reserves_with_numbers_of_64_bits(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        number = npy_stream._fallocate(file.fileno(), 128, 2**20)
        if number == errno.EOPNOTSUPP:
            pytest.skip("the file system cannot reserve")
        assert number == 0
        # An offset of 32 bits would be within the largest file.
        assert npy_stream._fallocate(file.fileno(), 2**63 - 2, 1) == errno.EFBIG
    state = (tmp_path / "file").stat()
    assert state.st_size == 0
    assert state.st_blocks * 512 >= 2**20


def test_no_other_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert npy_stream._fallocate(-1, 0, 1) == 0
