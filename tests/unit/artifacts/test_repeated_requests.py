"""Counting what s3fs repeats: blocks that overlap, and the log of s3fs as it was before."""

import logging

import pytest
import s3fs

from cv_factory.artifacts.repeated_requests import counting_repeats

_LOG = logging.getLogger("s3fs")


@pytest.fixture
def filesystem(monkeypatch: pytest.MonkeyPatch) -> s3fs.S3FileSystem:
    """A file system of a store that is never asked."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    return s3fs.S3FileSystem(endpoint_url="http://127.0.0.1:9", skip_instance_cache=True)


def _repeat() -> None:
    """Log what s3fs logs when it repeats a call."""
    _LOG.debug("Retryable error: %s", "reset")


def test_blocks_that_overlap_count_each_and_leave_the_log_as_it_was(
    filesystem: s3fs.S3FileSystem,
) -> None:
    before = (_LOG.level, list(_LOG.filters))
    first, second = counting_repeats(filesystem), counting_repeats(filesystem)
    of_first = first.__enter__()
    _repeat()
    of_second = second.__enter__()
    _repeat()
    first.__exit__(None, None, None)
    _repeat()
    second.__exit__(None, None, None)
    _repeat()
    assert (of_first.count, of_second.count) == (2, 2)
    assert (_LOG.level, _LOG.filters) == before


@pytest.mark.parametrize(("level", "seen"), [("DEBUG", ["a detail", "a warning"]),
                                             ("INFO", ["a warning"])])  # fmt: skip
def test_who_reads_the_log_of_s3fs_misses_and_gains_nothing(
    level: str, seen: list[str], filesystem: s3fs.S3FileSystem, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(level, "s3fs"), counting_repeats(filesystem):
        caplog.clear()  # of what is logged when the first connection is set up
        caplog.handler.setLevel(logging.NOTSET)
        _LOG.debug("a detail")
        _LOG.warning("a warning")
    assert [r.message for r in caplog.records if r.name == "s3fs"] == seen
