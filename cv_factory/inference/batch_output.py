"""Output folder of batch inference, local or in a bucket; each file is written whole or not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cv_factory.artifacts.files import write_atomic
from cv_factory.artifacts.filesystems import get_filesystem_errors
from cv_factory.data.storage.stores import open_filesystem, parse_scheme
from cv_factory.errors import CVFactoryError


class OutputError(CVFactoryError):
    """The output folder cannot be used, or holds other files."""


class OutputFolder:
    """Files by name in a folder of this machine or of an fsspec file system."""

    def __init__(self, filesystem: Any, path: str, root: str) -> None:
        """Use a folder of an open file system.

        Args:
            filesystem: An ``fsspec.AbstractFileSystem``; None for this machine's own files.
            path: Path of the folder in it.
            root: URL or path of the folder for messages, such as ``s3://bucket/scores``.
        """
        self._filesystem = filesystem
        self._path = path.rstrip("/")
        self.root = root
        self._errors = (OSError,) if filesystem is None else get_filesystem_errors(filesystem)

    @classmethod
    def open(cls, path: str, options: Mapping[str, str | int | bool]) -> "OutputFolder":
        """Open a folder, which need not exist, by its path or URL.

        Raises:
            SourceError: No file system handles the URL, or its package is not installed.
        """
        if not parse_scheme(path) or parse_scheme(path) == "file":
            folder = Path(path.removeprefix("file://")).expanduser()
            return cls(None, str(folder.absolute()), path)
        filesystem, inside = open_filesystem(path, options)
        return cls(filesystem, inside, path)

    def names(self) -> set[str]:
        """Return the names of the files, without hidden ones such as partial files.

        Raises:
            OutputError: The folder cannot be listed.
        """
        try:
            if self._filesystem is None:
                folder = Path(self._path)
                return {p.name for p in folder.glob("[!.]*")}
            # Another process may have written since it was listed.
            self._filesystem.invalidate_cache(self._path)
            if not self._filesystem.isdir(self._path):
                return set()
            listed = self._filesystem.ls(self._path, detail=False)
            return {str(name).rstrip("/").rsplit("/", 1)[-1] for name in listed}
        except self._errors as error:
            raise OutputError(f"Cannot list the output folder {self.root} ({error}).") from None

    def remove_partial_files(self) -> None:
        """Remove what ``write_atomic`` left in a job that was killed."""
        if self._filesystem is None:
            for path in Path(self._path).glob(".*.partial"):
                path.unlink(missing_ok=True)

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
            raise OutputError(f"Cannot read {self.root}/{name} ({error}).") from None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file: renamed into place on this machine, in one request elsewhere.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            if self._filesystem is None:
                folder = Path(self._path)
                folder.mkdir(parents=True, exist_ok=True)
                write_atomic(folder / name, content)
            else:
                self._filesystem.pipe_file(f"{self._path}/{name}", content)
        except self._errors as error:
            raise OutputError(
                f"Cannot write {self.root}/{name} ({error}): check its space and permissions."
            ) from None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            OutputError: It cannot be removed.
        """
        try:
            if self._filesystem is None:
                (Path(self._path) / name).unlink(missing_ok=True)
            elif self._filesystem.exists(f"{self._path}/{name}"):
                self._filesystem.rm_file(f"{self._path}/{name}")
        except self._errors as error:
            raise OutputError(
                f"Cannot remove {self.root}/{name} ({error}): check its permissions."
            ) from None

    def rename(self, name: str, new_name: str) -> None:
        """Rename a file.

        Raises:
            OutputError: It cannot be renamed.
        """
        try:
            if self._filesystem is None:
                (Path(self._path) / name).rename(Path(self._path) / new_name)
            else:
                self._filesystem.mv(f"{self._path}/{name}", f"{self._path}/{new_name}")
        except self._errors as error:
            raise OutputError(
                f"Cannot rename {self.root}/{name} to {new_name} ({error}): check its permissions."
            ) from None
