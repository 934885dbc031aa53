"""Artifacts in object stores: files go up and come down in parallel chunks, never whole in memory.

The header goes up last, so that an upload that broke off is no artifact; whatever comes down is
compared with the sizes and checksums that the header names.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cv_factory.artifacts.files import listed_files, verify_files
from cv_factory.artifacts.filesystems import describe_error, get_filesystem_errors
from cv_factory.artifacts.transfer import fetch_file, put_file
from cv_factory.errors import ArtifactError

_log = logging.getLogger(__name__)

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
        with _translate_store_errors(filesystem, f"{uri}/{name}", "written"):
            put_file(filesystem, directory / name, f"{uri}/{name}")


def download_artifact(filesystem: Any, uri: str, kind: str, directory: Path) -> None:
    """Copy an artifact from an object store into an existing directory and verify all of it.

    Only files that the header lists are fetched; at most 8 chunks of 8 MiB are in memory.

    Raises:
        ArtifactError: The store cannot be reached, or the artifact is incomplete or damaged.
    """
    header = f"{kind}.json"
    if not artifact_exists(filesystem, uri, kind):
        raise ArtifactError(
            f"{uri}/{header} does not exist: the artifact is incomplete or lies elsewhere."
        )
    with _translate_store_errors(filesystem, f"{uri}/{header}", "read"):
        fetch_file(filesystem, f"{uri}/{header}", directory / header)
    try:
        for name, size in listed_files(directory, kind).items():
            _announce("Downloading", name, size)
            with _translate_store_errors(filesystem, f"{uri}/{name}", "read"):
                fetch_file(filesystem, f"{uri}/{name}", directory / name, size)
        verify_files(directory, kind)
    except ArtifactError as error:
        raise ArtifactError(f"{error} It was fetched from {uri}.") from None


def artifact_exists(filesystem: Any, uri: str, kind: str) -> bool:
    """Return whether an object store holds an artifact of this kind in a folder.

    Raises:
        ArtifactError: The store cannot be reached.
    """
    with _translate_store_errors(filesystem, f"{uri}/{kind}.json", "read"):
        return bool(filesystem.exists(f"{uri}/{kind}.json"))


def _announce(verb: str, name: str, size: int) -> None:
    if size >= _ANNOUNCED_BYTES:
        _log.info(f"{verb} {name}, {size / 1e6:,.0f} MB")


@contextmanager
def _translate_store_errors(filesystem: Any, uri: str, verb: str) -> Iterator[None]:
    """Translate what a file system raises in the block into an error that names the object."""
    try:
        yield
    except get_filesystem_errors(filesystem) as error:
        raise ArtifactError(f"{uri} cannot be {verb} ({describe_error(error)}).") from None
