# ruff: noqa: PTH116, PTH118, PTH120 - names are bytes, which pathlib does not know
"""Stores of image files: a local folder, or anything that fsspec can open, behind one interface.

A store reads only what lies below its root: names that are absolute, climb with ``..`` or lead out
of the root through a symbolic link are refused.
"""

import errno
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from cv_factory.artifacts.filesystems import describe_error, get_filesystem_errors
from cv_factory.cpu import available_cpus
from cv_factory.data.storage.environment import expand
from cv_factory.errors import ConfigError, ImageError, SourceError, missing_extra

# "cam0-2024-05-01T12:30:07.png" is a file name: "://" makes a URL, "::" one of fsspec's chains.
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)(?:://|::)|^(data|file):", re.IGNORECASE)
#: Read by the packages of the extra ``sources``; the packages of other schemes are named.
_SCHEMES_OF_EXTRA = ("s3", "s3a")
_DRIVE = re.compile(r"^[A-Za-z]:")
_REMOTE_READERS = 16
#: What operating systems, file servers and notebooks leave beside a user's files, in lower case.
_SYSTEM_FILES = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini"),
        *(".ds_store", "icon\r"),
    }
)
_SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        ".ipynb_checkpoints",
        "@eadir",
        "$recycle.bin",
        "#recycle",
        "@recycle",
        "system volume information",
        "lost+found",
    }
)
_VERSION_KEYS = ("ETag", "etag", "md5", "checksum", "LastModified", "mtime", "sha", "created")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file below a store's root.

    Attributes:
        name: Path relative to the root, with forward slashes, in the file system's own bytes.
        version: Changes when the file does (size and modification time or ETag); empty where the
            file system does not tell.
        problem: Why it cannot be read, where that is known already.
        is_linked_folder: Whether it is a link to a folder, which is not followed.
    """

    name: bytes
    version: str = ""
    problem: str = ""
    is_linked_folder: bool = False


class ImageStore(ABC):
    """Files below one root."""

    root: str

    @abstractmethod
    def exists(self) -> bool:
        """Whether the root is a folder."""

    @abstractmethod
    def folders(self, below: str = "") -> list[str]:
        """Return the names of the folders in the root, or in a folder of it.

        Hidden folders, and those that operating systems make, are left out.

        Raises:
            SourceError: The folder cannot be listed.
        """

    @abstractmethod
    def files(self) -> Iterator[StoredFile]:
        """Yield every file below the root in no particular order; hidden ones are left out."""

    @abstractmethod
    def read(self, name: bytes, max_bytes: int) -> bytes:
        """Return the content of one file.

        Raises:
            ImageError: It is missing, unreadable, too large, or lies outside of the root.
        """

    @abstractmethod
    def version(self, name: bytes) -> str:
        """Return what changes when a file does, appears or vanishes; empty where nothing tells."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether a file is known to lie below the root; False where nothing tells."""

    @abstractmethod
    def strip_root(self, reference: str) -> str:
        """Return the path from the root of what lies below it; other references as they are."""

    @property
    def readers(self) -> int:
        """Number of threads that may read at once."""
        return available_cpus()

    def location(self, name: bytes) -> str:
        """Return where a file lies, for people."""
        return f"{self.root.rstrip('/')}/{printable(name)}"


def printable(name: bytes) -> str:
    r"""Decode a file's name; bytes that are not UTF-8 become ``\xNN``."""
    return name.decode("utf-8", "backslashreplace")


def parse_scheme(path: str) -> str:
    """Return the URL scheme of a path in lower case, empty for a plain path."""
    match = _SCHEME.match(path)
    return (match[1] or match[2]).lower() if match else ""


def check_relative(name: str) -> str:
    """Return the name if it can only lead below the root.

    Raises:
        ImageError: It is empty, absolute, climbs with ``..``, or is no name of a file at all.
    """
    if not name:
        raise ImageError("no image is named")
    if "\0" in name:
        raise ImageError("the path holds a null character")
    if name[0] in "/\\~" or _DRIVE.match(name):
        raise ImageError("the path is absolute and does not lie below the root")
    if ".." in re.split(r"[/\\]", name):
        raise ImageError("the path climbs out of the root with '..'")
    return name


def is_system_path(path: str) -> bool:
    """Whether a file belongs to an operating system, a file server or a notebook, not to a user."""
    *folders, base = re.split(r"[/\\]", path.lower())
    file, _, stream = base.partition(":")  # a stream of NTFS, copied to another file system
    is_system_file = file in _SYSTEM_FILES or base[:2] == "._" or stream == "zone.identifier"
    return is_system_file or not _SYSTEM_FOLDERS.isdisjoint(folders)


def open_store(
    root: str,
    options: Mapping[str, str | int | bool] | None = None,
    *,
    follow_links: bool = False,
) -> ImageStore:
    """Open the folder or fsspec URL.

    Args:
        root: A path or a URL.
        options: For fsspec's file systems.
        follow_links: Whether symbolic links of a local folder may lead out of it.

    Raises:
        SourceError: No file system handles the URL, or its package is not installed.
    """
    scheme = parse_scheme(root)
    if not scheme or scheme == "file":
        return LocalStore(root.removeprefix("file://"), follow_links=follow_links)
    if scheme in ("http", "https"):
        raise SourceError(f"{root} cannot be listed like a folder; use --set data.source=http.")
    return FsspecStore.connect(root, options or {})


class LocalStore(ImageStore):
    """A folder of this machine."""

    def __init__(self, root: str, *, follow_links: bool = False) -> None:
        """Expand ``~``; nothing is read yet.

        Args:
            root: The folder.
            follow_links: Whether links to folders are walked, and links may lead out of the root.
        """
        self._follow_links = follow_links
        self._path = Path(root).expanduser()
        self.root = str(self._path)
        self._real_root = os.fsencode(os.path.realpath(self._path))
        self._real_folder = lru_cache(maxsize=4096)(os.path.realpath)

    def exists(self) -> bool:
        """Whether the root is a folder."""
        return self._path.is_dir()

    def folders(self, below: str = "") -> list[str]:
        """Return the names of the folders in a folder, links to folders included."""
        folder = self._path / below
        try:
            with os.scandir(os.fsencode(folder)) as entries:
                return _visible(printable(e.name) for e in entries if e.is_dir())
        except OSError as error:
            raise SourceError(f"{folder} cannot be listed ({describe_error(error)}).") from None

    def files(self) -> Iterator[StoredFile]:
        """Walk the folder; a subfolder that cannot be opened is one problem."""
        pending: list[tuple[bytes, tuple[bytes, ...]]] = [(b"", ())]
        while pending:
            folder, linked_from = pending.pop()
            try:
                with os.scandir(os.path.join(os.fsencode(self._path), folder)) as entries:
                    for entry in entries:
                        if entry.name.startswith(b"."):
                            continue
                        name = folder + b"/" + entry.name if folder else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            pending.append((name, linked_from))
                        elif (chain := self._follow(entry, linked_from)) is not None:
                            pending.append((name, chain))
                        else:
                            yield _stored_file(name, entry)
            except OSError as error:
                yield StoredFile(folder, problem=describe_error(error))

    def _follow(
        self, entry: "os.DirEntry[bytes]", linked_from: tuple[bytes, ...]
    ) -> tuple[bytes, ...] | None:
        """Return the real folders of all links on the way through a link; None if not followed.

        A link to a folder that one of them lies in is not: it would be walked for ever.
        """
        try:
            if not (self._follow_links and entry.is_symlink() and entry.is_dir()):
                return None
        except OSError:  # a link that leads nowhere is a file that cannot be read
            return None
        target = os.path.realpath(entry.path).rstrip(b"/") + b"/"
        chain = (*linked_from, os.path.realpath(os.path.dirname(entry.path)))
        is_loop = any((folder + b"/").startswith(target) for folder in chain)
        return None if is_loop else chain

    def version(self, name: bytes) -> str:
        """Return size, modification time and mode of a file, or why it has none."""
        try:
            status = os.stat(os.path.join(os.fsencode(self._path), name))
        except OSError as error:
            return describe_error(error)
        return _local_version(status)

    def has(self, name: str) -> bool:
        """Whether there is such a file, hidden ones included."""
        return os.path.isfile(os.path.join(self._path, name))  # noqa: PTH113 - no OSError

    def strip_root(self, reference: str) -> str:
        """Return the path from the root of an absolute path or file URL below it."""
        path = reference
        if parse_scheme(reference) == "file":
            path = unquote(reference[len("file:") :].removeprefix("//").removeprefix("localhost"))
        for root in (os.path.abspath(self._path), os.fsdecode(self._real_root)):  # noqa: PTH100
            if path.startswith(prefix := f"{root.rstrip('/')}/"):
                return path[len(prefix) :].lstrip("/")
        return reference

    def read(self, name: bytes, max_bytes: int) -> bytes:
        """Read a regular file without following links out of the root."""
        path = os.path.join(os.fsencode(self._path), name)
        try:
            folder, base = os.path.split(path)
            # The folder is resolved once for all its files; the file itself must be no link.
            try:
                return self._read_inside(os.path.join(self._real_folder(folder), base), max_bytes)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
            return self._read_inside(os.path.realpath(path, strict=True), max_bytes)
        except OSError as error:
            raise ImageError(describe_error(error)) from None

    def _read_inside(self, path: bytes, max_bytes: int) -> bytes:
        is_inside = path.startswith(self._real_root.rstrip(b"/") + b"/")
        if not is_inside and not self._follow_links:
            raise ImageError(
                "a symbolic link that leaves the folder (data.follow_links=true follows it)"
            )
        # Non-blocking: opening a pipe must not wait for someone to write.
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(number)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("not a regular file")
            if status.st_size > max_bytes:
                raise ImageError(_too_large(status.st_size, max_bytes))
            content = os.read(number, status.st_size + 1)
            while len(content) < status.st_size and (more := os.read(number, status.st_size)):
                content += more
        finally:
            os.close(number)
        return content


class FsspecStore(ImageStore):
    """A folder of any file system that fsspec knows: object stores, memory, DVC."""

    def __init__(self, filesystem: Any, path: str, root: str) -> None:
        """Wrap an open file system.

        Args:
            filesystem: An ``fsspec.AbstractFileSystem``.
            path: The root in it.
            root: The root for people, such as ``s3://bucket/pets``.
        """
        self._filesystem = filesystem
        self._path = path.rstrip("/")
        self.root = root
        self._errors = get_filesystem_errors(filesystem)

    @classmethod
    def connect(
        cls, url: str, options: Mapping[str, str | int | bool], *, is_setting: bool = True
    ) -> "FsspecStore":
        """Open the file system of a URL; arguments and errors as for ``open_filesystem``."""
        filesystem, path = open_filesystem(url, options, is_setting=is_setting)
        return cls(filesystem, path, url)

    @property
    def readers(self) -> int:
        """Number of threads that may read at once."""
        return _REMOTE_READERS

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open one file for reading.

        Raises:
            SourceError: It cannot be opened.
        """
        try:
            with self._filesystem.open(f"{self._path}/{name}", "rb") as file:
                yield file
        except self._errors as error:
            raise SourceError(
                f"{self.root}/{name} cannot be read ({describe_error(error)})."
            ) from None

    def exists(self) -> bool:
        """Whether anything lies below the root.

        Raises:
            SourceError: The file system cannot be reached or refuses.
        """
        try:
            return bool(self._filesystem.isdir(self._path))
        except self._errors as error:
            raise SourceError(f"{self.root} cannot be read ({describe_error(error)}).") from None

    def folders(self, below: str = "") -> list[str]:
        """Return the names of the folders in a folder."""
        try:
            listing = self._filesystem.ls(f"{self._path}/{below}".rstrip("/"), detail=True)
        except self._errors as error:
            raise SourceError(f"{self.root} cannot be listed ({describe_error(error)}).") from None
        return _visible(_base(i["name"]) for i in listing if i["type"] == "directory")

    def files(self) -> Iterator[StoredFile]:
        """Walk folder by folder, so that no more than one folder's listing is in memory.

        Raises:
            SourceError: The file system cannot be reached or refuses.
        """
        try:
            walk = self._filesystem.walk(self._path, detail=True, on_error="raise")
            for folder, subfolders, files in walk:
                for name in [name for name in subfolders if name.startswith(".")]:
                    del subfolders[name]
                inside = folder[len(self._path) :].strip("/")
                for name, info in files.items():
                    if name and not name.startswith("."):
                        relative = f"{inside}/{name}" if inside else name
                        yield StoredFile(relative.encode(), _object_version(info))
        except self._errors as error:
            raise SourceError(f"{self.root} cannot be listed ({describe_error(error)}).") from None

    def version(self, name: bytes) -> str:
        """Return the version of an object from one listing of all; empty where none is allowed."""
        if self._versions is None:
            return ""
        if name in self._versions:
            return self._versions[name]
        # Hidden, or under another spelling of its path.
        try:
            return _object_version(self._filesystem.info(f"{self._path}/{name.decode()}"))
        except self._errors as error:
            return describe_error(error)

    def has(self, name: str) -> bool:
        """Whether the listing of all objects, if one is allowed, has this one."""
        return name.encode() in (self._versions or {})

    def strip_root(self, reference: str) -> str:
        """Return the path from the root of a URL below it."""
        return reference.removeprefix(f"{self.root.rstrip('/')}/")

    @cached_property
    def _versions(self) -> dict[bytes, str] | None:
        """Versions by name; None where objects may be read and not listed."""
        try:
            return {file.name: file.version for file in self.files()}
        except SourceError:
            return None

    def read(self, name: bytes, max_bytes: int) -> bytes:
        """Read one object."""
        path = f"{self._path}/{name.decode()}"
        try:
            size = int(self._filesystem.info(path).get("size") or 0)
            if size > max_bytes:
                raise ImageError(_too_large(size, max_bytes))
            content: bytes = self._filesystem.cat_file(path)
        except self._errors as error:
            raise ImageError(describe_error(error)) from None
        return content


def open_filesystem(
    url: str, options: Mapping[str, str | int | bool], *, is_setting: bool = True
) -> tuple[Any, str]:
    """Open the fsspec file system of a URL; return it and the URL's path in it.

    Args:
        url: The URL.
        options: Of the file system.
        is_setting: Whether the configuration gives the URL, and ``{env:NAME}`` in it is replaced.
            Whoever writes a table could have this machine's secrets sent to an address of theirs.

    Raises:
        SourceError: No file system handles the URL, or its package is not installed.
    """
    import fsspec

    arguments: dict[str, Any] = {
        key: expand(value, f"data.storage_options.{key}") if isinstance(value, str) else value
        for key, value in options.items()
    }
    if "endpoint_url" in arguments and parse_scheme(url) == "s3":
        arguments["client_kwargs"] = {"endpoint_url": arguments.pop("endpoint_url")}
    address = expand(url, f"the address {url}") if is_setting else url
    try:
        filesystem, path = fsspec.core.url_to_fs(address, use_listings_cache=False, **arguments)
    except ImportError as error:
        hint = f" {missing_extra('sources')}" if parse_scheme(url) in _SCHEMES_OF_EXTRA else ""
        raise SourceError(f"{url} needs a package that is not installed: {error}.{hint}") from None
    except ValueError as error:
        raise SourceError(f"{url} cannot be opened: {error}.") from None
    except TypeError as error:
        raise ConfigError(f"data.storage_options does not fit {url}: {error}.") from None
    return filesystem, path


def _stored_file(name: bytes, entry: "os.DirEntry[bytes]") -> StoredFile:
    """Describe one entry of a folder; what is wrong with it is not the folder's problem."""
    try:
        if entry.is_symlink() and entry.is_dir():
            return StoredFile(name, is_linked_folder=True)
        status = entry.stat()
    except OSError as error:
        return StoredFile(name, problem=describe_error(error))
    return StoredFile(name, _local_version(status))


def _local_version(status: os.stat_result) -> str:
    """Return size, modification time and mode: a file that may be read again has changed, too."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_mode:o}"


def _object_version(info: Mapping[str, Any]) -> str:
    # Of files in a working tree, DVC gives what the file system says in a dictionary of its own.
    facts = {**info, **(info.get("fs_info") or {})}
    version = next((str(facts[key]) for key in _VERSION_KEYS if facts.get(key)), "")
    return f"{facts.get('size')} {version}" if version else ""


def _visible(folders: Iterable[str]) -> list[str]:
    """Sort names of folders, without hidden ones and those of operating systems."""
    return sorted(f for f in folders if f and f[0] != "." and not is_system_path(f"{f}/"))


def _base(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _too_large(size: int, max_bytes: int) -> str:
    return f"{size} bytes are more than the {max_bytes} allowed"
