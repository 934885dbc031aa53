"""Where the audit log lies: small files that are made once and never changed."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zenml.artifact_stores import BaseArtifactStore

_FOLDER = "cv_factory_audit"


class LogFiles(Protocol):
    """A folder whose files can be made, once each, and read."""

    def names(self) -> list[str]:
        """Return the names of the files, sorted."""

    def read(self, name: str) -> bytes:
        """Return a file's content."""

    def create(self, name: str, content: bytes) -> None:
        """Make a file, whole or not at all.

        Raises:
            FileExistsError: There is one of this name.
        """


class LocalLogFiles:
    """Files in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return the names of the files, sorted."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.glob("*.json"))

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return (self._folder / name).read_bytes()

    def create(self, name: str, content: bytes) -> None:
        """Make a file: written beside its place, then linked there, which only one can do."""
        self._folder.mkdir(parents=True, exist_ok=True)
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
    """Objects in a ZenML artifact store; the store refuses to make one twice (If-None-Match)."""

    def __init__(self, store: "BaseArtifactStore", folder: str) -> None:
        self._store, self._folder = store, folder

    def names(self) -> list[str]:
        """Return the names of the objects, sorted."""
        if not self._store.exists(self._folder):
            return []
        names = (str(name).rstrip("/").rsplit("/", 1)[-1] for name in self._listed())
        return sorted(name for name in names if name.endswith(".json"))

    def read(self, name: str) -> bytes:
        """Return an object's content."""
        with self._store.open(f"{self._folder}/{name}", "rb") as file:
            content: bytes = file.read()
        return content

    def create(self, name: str, content: bytes) -> None:
        """Make an object in one request."""
        with self._store.open(f"{self._folder}/{name}", "xb") as file:
            file.write(content)

    def _listed(self) -> list[object]:
        filesystem = getattr(self._store, "filesystem", None)
        if filesystem is not None:
            # Another process may have written since this one listed the folder.
            filesystem.invalidate_cache()
        return list(self._store.listdir(self._folder))


def log_files(store: "BaseArtifactStore", model_name: str) -> LogFiles:
    """Return the folder of a model's audit log in an artifact store."""
    from zenml.utils.io_utils import is_remote

    if is_remote(store.path):
        return RemoteLogFiles(store, f"{store.path.rstrip('/')}/{_FOLDER}/{model_name}")
    return LocalLogFiles(Path(store.path) / _FOLDER / model_name)
