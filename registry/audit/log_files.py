"""Storage of the audit log and the alert log: small files, created once and never changed."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cv_factory.artifacts.filesystems import get_filesystem_errors
from cv_factory.config.section import REGISTERED_NAME
from cv_factory.errors import ArtifactError

if TYPE_CHECKING:
    from zenml.artifact_stores import BaseArtifactStore

_FOLDER = "cv_factory_audit"


class LogFiles(Protocol):
    """Folder of files that can be created once each, and read."""

    def names(self) -> list[str]:
        """Return the names of the files, sorted."""

    def read(self, name: str) -> bytes:
        """Return a file's content."""

    def create(self, name: str, content: bytes) -> None:
        """Create a file, whole or not at all.

        Raises:
            FileExistsError: Another process created one of this name.
            ArtifactError: The folder cannot be written.
        """


class LocalLogFiles:
    """Log files in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return the names of the files, sorted."""
        with _translate_errors(str(self._folder), (OSError,)):
            if not self._folder.is_dir():
                return []
            return sorted(path.name for path in self._folder.glob("*.json"))

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        with _translate_errors(str(self._folder), (OSError,)):
            return (self._folder / name).read_bytes()

    def create(self, name: str, content: bytes) -> None:
        """Create a file: write it beside its place, then link it there, which only one can do."""
        with _translate_errors(str(self._folder), (OSError,)):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._link(name, content)

    def _link(self, name: str, content: bytes) -> None:
        handle, partial = tempfile.mkstemp(dir=self._folder, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(partial, self._folder / name)
        finally:
            Path(partial).unlink(missing_ok=True)


class RemoteLogFiles:
    """Log files in a ZenML artifact store, which refuses to create one twice (If-None-Match)."""

    def __init__(self, store: "BaseArtifactStore", folder: str) -> None:
        self._store, self._folder = store, folder
        self._contents: dict[str, bytes] = {}

    def names(self) -> list[str]:
        """Return the names of the objects, sorted."""
        self._invalidate_cache()
        with _translate_errors(self._folder, self._errors):
            if not self._store.exists(self._folder):
                return []
            paths = list(self._store.listdir(self._folder))
        names = (str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths)
        return sorted(name for name in names if name.endswith(".json"))

    def read(self, name: str) -> bytes:
        """Return an object's content, read once: a command looks at the log many times."""
        path = f"{self._folder}/{name}"
        if name not in self._contents:
            with (
                _translate_errors(self._folder, self._errors),
                self._store.open(path, "rb") as file,
            ):
                self._contents[name] = file.read()
        return self._contents[name]

    def create(self, name: str, content: bytes) -> None:
        """Create an object in one request."""
        try:
            with self._store.open(f"{self._folder}/{name}", "xb") as file:
                file.write(content)
        except self._errors as error:
            # Servers answer 412, with or without a reason, or 409. A request that is sent again
            # because its answer was lost is refused because of the object it created itself.
            if name not in self.names():
                raise _store_error(self._folder, error) from error
            if self.read(name) != content:
                raise FileExistsError(f"{self._folder}/{name}") from error

    @cached_property
    def _errors(self) -> tuple[type[Exception], ...]:
        filesystem = getattr(self._store, "filesystem", None)
        return get_filesystem_errors(filesystem) if filesystem is not None else (OSError,)

    def _invalidate_cache(self) -> None:
        """Drop the cached listing of the store: another process may have written since."""
        filesystem = getattr(self._store, "filesystem", None)
        if filesystem is not None:
            filesystem.invalidate_cache()


@contextmanager
def _translate_errors(folder: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except errors as error:
        raise _store_error(folder, error) from error


def _store_error(folder: str, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"The log in {folder} cannot be reached ({error}). Check the artifact store of the active "
        "stack and your permissions: zenml artifact-store describe"
    )


def has_log(store: "BaseArtifactStore", model_name: str) -> bool:
    """Return whether an artifact store holds an audit log of a model, deleted or not."""
    # A name of another pattern could lead out of the folder of the logs.
    is_name = re.fullmatch(REGISTERED_NAME, model_name) is not None
    return is_name and bool(open_log_files(store, model_name).names())


def open_log_files(store: "BaseArtifactStore", model_name: str) -> LogFiles:
    """Return the folder of a model's audit log in an artifact store."""
    return open_folder(store, f"{_FOLDER}/{model_name}")


def open_folder(store: "BaseArtifactStore", name: str) -> LogFiles:
    """Return a folder of files that are created once each in an artifact store."""
    from zenml.utils.io_utils import is_remote

    if is_remote(store.path):
        return RemoteLogFiles(store, f"{store.path.rstrip('/')}/{name}")
    return LocalLogFiles(Path(store.path) / name)
