"""The base class of everything that passes between steps: a directory of plain files."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from cv_factory.artifacts.files import read_header, write_header
from cv_factory.errors import ArtifactError


class Artifact(ABC):
    """A value that is stored as plain files beside one JSON header, which is written last."""

    #: Names the header file, ``<KIND>.json``.
    KIND: ClassVar[str]
    #: Raised when a reader of the old format could not read the new one.
    FORMAT_VERSION: ClassVar[int] = 1
    #: Whether ``load`` verifies checksums of files above ``files.SMALL_FILE_BYTES``, too.
    VERIFY_LARGE_FILES: ClassVar[bool] = False
    #: Artifacts inside this one, by the name of their subdirectory.
    PARTS: ClassVar[Mapping[str, "type[Artifact]"]] = {}
    #: Those that may be absent.
    OPTIONAL_PARTS: ClassVar[frozenset[str]] = frozenset()

    def save(self, directory: Path) -> None:
        """Write the artifact's files and then its header into an existing directory."""
        files = self._write_files(directory)
        write_header(directory, self.KIND, self.FORMAT_VERSION, self._header(), files)

    @classmethod
    def load(cls, directory: Path, *, verify: bool = False) -> Self:
        """Read the artifact without executing anything from its directory.

        Args:
            directory: Written by ``save``.
            verify: Also verify the checksums of large files, which reads all of them.

        Raises:
            ArtifactError: The artifact is damaged, incomplete or of another format version.
        """
        verify = verify or cls.VERIFY_LARGE_FILES
        body = read_header(directory, cls.KIND, cls.FORMAT_VERSION, verify_large=verify)
        try:
            return cls._from_files(directory, body)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{directory / cls.KIND}.json is damaged, or names what this checkout lacks: it "
                f"describes no {cls.__name__}: {error}"
            ) from None

    def _write_files(self, directory: Path) -> Mapping[str, str | None]:
        """Write all files but the header; return their names with the checksums already known."""
        return {}

    @abstractmethod
    def _header(self) -> dict[str, Any]:
        """Return the JSON-serializable body of the header."""

    @classmethod
    @abstractmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        """Rebuild the artifact from a verified directory and the body of its header.

        Raises:
            ArtifactError: Two files contradict each other.
            KeyError, TypeError, ValueError: The body lacks a field or holds a wrong one.
        """
