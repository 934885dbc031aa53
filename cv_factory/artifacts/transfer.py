"""Transfer of files to and from object stores, in parallel chunks, never whole in memory.

Errors of the file system pass through: what they mean is known where the files are.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from cv_factory.errors import ArtifactError

_CHUNK_BYTES = 8 * 2**20
_CONNECTIONS = 8
_MAX_PARTS = 10_000  # of one S3 object


def put_file(filesystem: Any, source: Path, uri: str) -> None:
    """Copy a file to an object store and compare the stored size.

    At most 8 chunks of 8 MiB are in memory (larger ones above 78 GiB, for S3 counts them).

    Args:
        filesystem: An ``fsspec.AbstractFileSystem``.
        source: The file.
        uri: The object to be written.

    Raises:
        ArtifactError: The store holds another size than was sent.
    """
    size, options = source.stat().st_size, {}
    if "s3" in filesystem.protocol:
        chunk = max(_CHUNK_BYTES, -(-size // _MAX_PARTS))
        options = {"chunksize": chunk, "max_concurrency": _CONNECTIONS}
    filesystem.put_file(str(source), uri, **options)
    stored = int(filesystem.info(uri)["size"])
    if stored != size:
        raise ArtifactError(f"{uri} holds {stored} of the {size} bytes that were sent.")


def fetch_file(filesystem: Any, uri: str, target: Path, expected_size: int | None = None) -> None:
    """Copy an object to a file; at most 8 chunks of 8 MiB are in memory.

    Args:
        filesystem: An ``fsspec.AbstractFileSystem``.
        uri: The object.
        target: The file to be written.
        expected_size: In bytes, where it is known.

    Raises:
        ArtifactError: The object has another size.
    """
    size = int(filesystem.info(uri)["size"])
    if expected_size is not None and size != expected_size:
        raise ArtifactError(f"{uri} has {size} bytes, its header says {expected_size}: damaged.")
    with (
        target.open("wb") as file,
        ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="download") as pool,
    ):
        file.truncate(size)
        copy = partial(_fetch_chunk, filesystem, uri, file.fileno(), size)
        try:
            for _ in pool.map(copy, range(0, size, _CHUNK_BYTES)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch_chunk(filesystem: Any, uri: str, file: int, size: int, start: int) -> None:
    end = min(start + _CHUNK_BYTES, size)
    content: bytes = filesystem.cat_file(uri, start=start, end=end)
    if len(content) != end - start:
        raise OSError(f"{len(content)} bytes came where {end - start} were requested")
    # A full disk takes a part before it refuses the rest.
    remaining = memoryview(content)
    while len(remaining):
        remaining = remaining[os.pwrite(file, remaining, end - len(remaining)) :]
