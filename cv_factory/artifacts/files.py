"""Artifacts on disk: plain files and one JSON header with their names, sizes and hashes.

The header is written last and atomically, so that a directory without a valid header is an
unfinished artifact. Reading never executes anything from the directory.

A checksum is the SHA-256 of a file in hexadecimal digits. That of a large array is ``xxh3_128:``
and its XXH3 of 128 bits, which takes a tenth of the time and finds damage as surely. Against
forgery neither helps beside the file: provenance has the SHA-256 of each image's pixels.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from cv_factory.errors import ArtifactError

#: Files up to this size (bytes) are verified on every load; larger ones on demand.
SMALL_FILE_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20
_SHA256, _XXH3 = "sha256", "xxh3_128"


class ArrayChecksum:
    """Checksum of the file of an array, whose bytes pass by: XXH3 above ``SMALL_FILE_BYTES``."""

    def __init__(self, size: int) -> None:
        """Begin a file of ``size`` bytes."""
        self._algorithm = _XXH3 if size > SMALL_FILE_BYTES else _SHA256
        self._digest = _create_digest(self._algorithm)

    def update(self, content: bytes | memoryview) -> None:
        """Add bytes; the GIL is released meanwhile."""
        self._digest.update(content)

    def format(self) -> str:
        """Return the checksum as ``write_header`` takes it."""
        digits: str = self._digest.hexdigest()
        return digits if self._algorithm == _SHA256 else f"{self._algorithm}:{digits}"


def checksum_array(path: Path) -> str:
    """Return the ``ArrayChecksum`` of a file."""
    checksum = ArrayChecksum(path.stat().st_size)
    _read_into(path, checksum.update)
    return checksum.format()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, reading it in 1 MiB chunks."""
    return _digest_file(path, _SHA256)


def _digest_file(path: Path, algorithm: str) -> str:
    digest = _create_digest(algorithm)
    _read_into(path, digest.update)
    digits: str = digest.hexdigest()
    return digits


def _read_into(path: Path, consume: Callable[[bytes], object]) -> None:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            consume(chunk)


def _create_digest(algorithm: str) -> Any:
    if algorithm == _SHA256:
        return hashlib.sha256()
    from xxhash import xxh3_128

    return xxh3_128()


def canonical_json(value: Any) -> str:
    """Serialize to JSON with sorted keys: equal values give equal bytes, NaN is refused.

    Raises:
        ValueError: The value holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of a JSON-serializable value in its canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_atomic(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that a reader sees either the whole of it or none (write, fsync, rename).

    Of several writers at a time, the last to finish wins: hold ``file_lock`` from reading to
    writing where the content depends on what the file held.

    Args:
        path: The file.
        content: All of its content.
        mode: Permissions, less the umask.
    """
    partial = path.with_name(f".{path.name}.{uuid4().hex[:12]}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file during the block, and wait for it before.

    The lock is on a file beside it, which stays: the file itself is replaced when it is written.
    """
    with path.with_name(f".{path.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_header(
    directory: Path,
    kind: str,
    version: int,
    body: Mapping[str, Any],
    files: Mapping[str, str | None],
) -> None:
    """Close an artifact: write ``<kind>.json`` with the format version, the body and the checksums.

    Args:
        directory: Holds the files already.
        kind: ``Artifact.KIND``, such as ``dataset``; it names the header file.
        version: Format version, raised when a reader of the old format could not read the new one.
        body: JSON-serializable content of the header.
        files: Names of the artifact's other files, with the checksums computed while writing or
            None.
    """
    listing = {}
    for name, checksum in files.items():
        algorithm, _, digits = (checksum or sha256_file(directory / name)).rpartition(":")
        size = (directory / name).stat().st_size
        listing[name] = {"size": size, algorithm or _SHA256: digits}
    header = {"kind": kind, "format_version": version, "files": listing, "body": dict(body)}
    write_atomic(directory / f"{kind}.json", canonical_json(header).encode())


def read_header(
    directory: Path, kind: str, version: int, *, verify_large: bool = False
) -> dict[str, Any]:
    """Read and check an artifact's header and the files it lists; return the header's body.

    Args:
        directory: The artifact's directory.
        kind: ``Artifact.KIND`` of what is expected there.
        version: The format version that the caller reads.
        verify_large: Also verify the checksums of files above ``SMALL_FILE_BYTES``.

    Raises:
        ArtifactError: The header is missing, unreadable, of another kind or version, or a listed
            file is missing, has another size or another checksum. The message names the file.
    """
    header_path = directory / f"{kind}.json"
    header = _parse_header(header_path)
    if header.get("kind") != kind:
        raise ArtifactError(f"{header_path} holds a {header.get('kind')!r}, expected a {kind!r}.")
    if header.get("format_version") != version:
        raise ArtifactError(
            f"{header_path} has format version {header.get('format_version')!r}; this code reads "
            f"version {version}. Load it with the CV Factory version that wrote it."
        )
    body = header.get("body")
    if not isinstance(body, dict):
        raise ArtifactError(f"{header_path} lacks its 'body': the artifact is damaged.")
    for name, entry in _entries(header, header_path).items():
        _check_file(directory, name, entry, header_path, verify_large)
    return body


def listed_files(directory: Path, kind: str) -> dict[str, int]:
    """Return name and size (bytes) of the files that an artifact's header lists.

    Raises:
        ArtifactError: The header is missing or unreadable.
    """
    path = directory / f"{kind}.json"
    return {name: entry["size"] for name, entry in _entries(_parse_header(path), path).items()}


def verify_files(directory: Path, kind: str) -> None:
    """Compare all files that an artifact's header lists with their sizes and checksums.

    Raises:
        ArtifactError: One of them is missing or damaged, or the header is.
    """
    path = directory / f"{kind}.json"
    for name, entry in _entries(_parse_header(path), path).items():
        _check_file(directory, name, entry, path, verify_large=True)


def _entries(header: dict[str, Any], header_path: Path) -> dict[str, dict[str, Any]]:
    """Return what a header says of each file, if it is a list of plain files."""
    files = header.get("files")
    if not isinstance(files, dict):
        raise ArtifactError(f"{header_path} lacks its 'files': the artifact is damaged.")
    for name, entry in files.items():
        if Path(name).name != name or not isinstance(entry, dict):
            raise ArtifactError(f"{header_path} lists {name!r}, which is no plain file name.")
        if not isinstance(entry.get("size"), int):
            raise ArtifactError(f"{header_path} gives no size for {name}: it is damaged.")
    return files


def _parse_header(header_path: Path) -> dict[str, Any]:
    try:
        header = json.loads(header_path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(
            f"{header_path} does not exist: the artifact is incomplete or lies elsewhere."
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{header_path} is not JSON ({error}): it is damaged.") from None
    if not isinstance(header, dict):
        raise ArtifactError(f"{header_path} is not a JSON object: the artifact is damaged.")
    return header


def _check_file(
    directory: Path, name: str, entry: dict[str, Any], header_path: Path, verify_large: bool
) -> None:
    path = directory / name
    if not path.is_file():
        raise ArtifactError(f"{path} is missing, but {header_path.name} lists it.")
    size = path.stat().st_size
    if size != entry["size"]:
        raise ArtifactError(f"{path} has {size} bytes, {header_path.name} says {entry['size']}.")
    if size > SMALL_FILE_BYTES and not verify_large:
        return
    algorithm = _XXH3 if _XXH3 in entry else _SHA256
    if _digest_file(path, algorithm) != entry.get(algorithm):
        raise ArtifactError(f"{path} does not match its checksum in {header_path.name}: damaged.")
