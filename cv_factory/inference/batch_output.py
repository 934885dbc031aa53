"""A folder that results are written to, here or in a bucket: each file whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cv_factory.artifacts.files import write_atomic
from cv_factory.artifacts.filesystems import errors_of
from cv_factory.data.storage.stores import open_filesystem, scheme_of
from cv_factory.errors import CVFactoryError


class OutputError(CVFactoryError):
    """Results cannot be written to where they were to go, or something else lies there."""


class OutputFolder:
    """Files by name in one folder of an fsspec file system."""

    def __init__(self, filesystem: Any, path: str, root: str) -> None:
        """Wrap an open file system.

        Args:
            filesystem: An ``fsspec.AbstractFileSystem``; None for this machine's own files.
            path: The folder in it.
            root: The folder for people, such as ``s3://bucket/scores``.
        """
        self._filesystem = filesystem
        self._path = path.rstrip("/")
        self.root = root
        self._errors = (OSError,) if filesystem is None else errors_of(filesystem)

    @classmethod
    def open(cls, path: str, options: Mapping[str, str | int | bool]) -> "OutputFolder":
        """Open a folder by its path or URL; it need not exist.

        Raises:
            SourceError: No file system handles the URL, or its package is not installed.
        """
        if not scheme_of(path) or scheme_of(path) == "file":
            folder = Path(path.removeprefix("file://")).expanduser()
            return cls(None, str(folder.absolute()), path)
        filesystem, inside = open_filesystem(path, options)
        return cls(filesystem, inside, path)

    def names(self) -> set[str]:
        """Return the names of the files; hidden ones, such as half-written files, are left out.

        Raises:
            OutputError: The folder cannot be read.
        """
        try:
            if self._filesystem is None:
                folder = Path(self._path)
                return {p.name for p in folder.glob("[!.]*")}
            if not self._filesystem.isdir(self._path):
                return set()
            listed = self._filesystem.ls(self._path, detail=False)
            return {str(name).rstrip("/").rsplit("/", 1)[-1] for name in listed}
        except self._errors as error:
            raise OutputError(f"{self.root} cannot be read ({error}).") from None

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            OutputError: It cannot be read.
        """
        try:
            if self._filesystem is None:
                return (Path(self._path) / name).read_bytes()
            content: bytes = self._filesystem.cat_file(f"{self._path}/{name}")
        except self._errors as error:
            raise OutputError(f"{self.root}/{name} cannot be read ({error}).") from None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file: by renaming here, in one request elsewhere.

        Raises:
            OutputError: It cannot be written, such as for want of space or permission.
        """
        try:
            if self._filesystem is None:
                folder = Path(self._path)
                folder.mkdir(parents=True, exist_ok=True)
                write_atomic(folder / name, content)
            else:
                self._filesystem.pipe_file(f"{self._path}/{name}", content)
        except self._errors as error:
            raise OutputError(f"{self.root}/{name} cannot be written ({error}).") from None
