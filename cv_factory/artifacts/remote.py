"""Artifacts in object stores: files go up and come down in parallel chunks, never whole in memory.

The header goes up last, so that an upload that broke off is no artifact; whatever comes down is
compared with the sizes and checksums that the header names.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cv_factory.artifacts.files import listed_files, verify_files
from cv_factory.artifacts.filesystems import errors_of, reason_of
from cv_factory.errors import ArtifactError

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 8 * 2**20
_CONNECTIONS = 8
_MAX_PARTS = 10_000  # of one S3 object
_ANNOUNCED_BYTES = 64 * 2**20


def upload_artifact(directory: Path, kind: str, filesystem: Any, uri: str) -> None:
    """Copy a saved artifact to an object store, its header last.

    At most 8 chunks of 8 MiB are in memory (larger ones above 78 GiB, for S3 counts them).

    Args:
        directory: Where the artifact was saved.
        kind: ``Artifact.KIND``, which names the header file.
        filesystem: An ``fsspec.AbstractFileSystem``; it repeats requests that fail.
        uri: The folder to be written in it.

    Raises:
        ArtifactError: The store cannot be reached, refuses, or holds another size than was sent.
    """
    files = listed_files(directory, kind)
    files[f"{kind}.json"] = (directory / f"{kind}.json").stat().st_size
    for name, size in files.items():
        _announce("Uploading", name, size)
        target, options = f"{uri}/{name}", {}
        if "s3" in filesystem.protocol:
            chunk = max(_CHUNK_BYTES, -(-size // _MAX_PARTS))
            options = {"chunksize": chunk, "max_concurrency": _CONNECTIONS}
        with _named(filesystem, target, "written"):
            filesystem.put_file(str(directory / name), target, **options)
            stored = int(filesystem.info(target)["size"])
        if stored != size:
            raise ArtifactError(f"{target} holds {stored} of the {size} bytes that were sent.")


def download_artifact(filesystem: Any, uri: str, kind: str, directory: Path) -> None:
    """Copy an artifact from an object store into an existing directory and verify all of it.

    Only files that the header lists are fetched; at most 8 chunks of 8 MiB are in memory.

    Raises:
        ArtifactError: The store cannot be reached, or the artifact is incomplete or damaged.
    """
    header = f"{kind}.json"
    with _named(filesystem, f"{uri}/{header}", "read"):
        is_complete = filesystem.exists(f"{uri}/{header}")
    if not is_complete:
        raise ArtifactError(
            f"{uri}/{header} does not exist: the artifact is incomplete or lies elsewhere."
        )
    _fetch(filesystem, f"{uri}/{header}", directory / header, None)
    try:
        for name, size in listed_files(directory, kind).items():
            _announce("Downloading", name, size)
            _fetch(filesystem, f"{uri}/{name}", directory / name, size)
        verify_files(directory, kind)
    except ArtifactError as error:
        raise ArtifactError(f"{error} It was fetched from {uri}.") from None


def _announce(verb: str, name: str, size: int) -> None:
    if size >= _ANNOUNCED_BYTES:
        _log.info(f"{verb} {name}, {size / 1e6:,.0f} MB")


def _fetch(filesystem: Any, source: str, target: Path, expected: int | None) -> None:
    """Fetch one object of the expected size, chunk by chunk and in parallel."""
    with _named(filesystem, source, "read"):
        size = int(filesystem.info(source)["size"])
    if expected is not None and size != expected:
        raise ArtifactError(f"{source} has {size} bytes, its header says {expected}: damaged.")
    with (
        target.open("wb") as file,
        ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="download") as pool,
        _named(filesystem, source, "read"),
    ):
        file.truncate(size)
        copy = partial(_fetch_chunk, filesystem, source, file.fileno(), size)
        try:
            for _ in pool.map(copy, range(0, size, _CHUNK_BYTES)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch_chunk(filesystem: Any, source: str, file: int, size: int, start: int) -> None:
    end = min(start + _CHUNK_BYTES, size)
    content: bytes = filesystem.cat_file(source, start=start, end=end)
    if len(content) != end - start:
        raise OSError(f"{len(content)} bytes came where {end - start} were asked for")
    os.pwrite(file, content, start)


@contextmanager
def _named(filesystem: Any, uri: str, verb: str) -> Iterator[None]:
    """Turn what a file system raises into an error that names the object."""
    try:
        yield
    except errors_of(filesystem) as error:
        raise ArtifactError(f"{uri} cannot be {verb} ({reason_of(error)}).") from None
