"""What every materializer does: map a noun's ``save`` and ``load`` to the artifact store.

A local store is written and read in place, so that arrays stay memory-mapped. What lies in a remote
store stands in a temporary directory meanwhile, from where it is sent, or mapped, in chunks.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Protocol, Self

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType
from zenml.utils import io_utils

from cv_factory.artifacts.remote import download_artifact, upload_artifact
from cv_factory.errors import ArtifactError


class Noun(Protocol):
    """A class of the library that knows its own files."""

    def save(self, directory: Path) -> None:
        """Write the artifact's files into an existing directory."""

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read them back."""


class NounMaterializer(BaseMaterializer):
    """Stores a noun; subclasses say which one, its header, its metadata and its pictures."""

    SKIP_REGISTRATION: ClassVar[bool] = True
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA
    #: Name of the header file, written last.
    HEADER: ClassVar[str]
    #: Subfolders that are artifacts of their own, with the names of their nouns.
    PARTS: ClassVar[dict[str, str]] = {}
    #: Requests to a remote store that had to be sent again while it was saved.
    _repeated = 0

    def save(self, data: Noun) -> None:
        """Write the noun to the artifact store.

        Raises:
            ArtifactError: A remote store cannot be written.
        """
        if not io_utils.is_remote(self.uri):
            data.save(Path(self.uri))
            return
        with TemporaryDirectory(prefix="cv-factory-") as temporary:
            data.save(Path(temporary))
            for folder, kind in self.PARTS.items():
                part = Path(temporary) / folder
                uri = f"{self.uri}/{folder}"
                self._repeated += upload_artifact(part, kind, self._filesystem, uri)
            files = Path(temporary)
            self._repeated += upload_artifact(files, self._kind, self._filesystem, self.uri)

    def load(self, data_type: type[Any]) -> Any:
        """Read the noun from the artifact store.

        What came from a remote store is mapped from files without a name: the kernel frees them
        when nothing uses them any more, also after a crash.

        Raises:
            ArtifactError: The stored files are damaged, incomplete or of another version.
        """
        if not io_utils.is_remote(self.uri):
            return data_type.load(Path(self.uri))
        with TemporaryDirectory(prefix="cv-factory-") as temporary:
            download_artifact(self._filesystem, self.uri, self._kind, Path(temporary))
            for folder, kind in self.PARTS.items():
                part = Path(temporary) / folder
                part.mkdir()
                download_artifact(self._filesystem, f"{self.uri}/{folder}", kind, part)
            return data_type.load(Path(temporary))

    @property
    def _kind(self) -> str:
        return self.HEADER.removesuffix(".json")

    @property
    def _filesystem(self) -> Any:
        """The fsspec file system of the artifact store; those of S3, GCP and Azure have one."""
        filesystem = getattr(self.artifact_store, "filesystem", None)
        if filesystem is None:
            raise ArtifactError(
                f"{self.uri}: the artifact store flavor {self.artifact_store.flavor!r} has no "
                "'filesystem' of fsspec, which images are sent through."
            )
        return filesystem

    def save_visualizations(self, data: Any) -> dict[str, VisualizationType]:
        """Write the pictures and pages of ``pictures`` beside the artifact's files."""
        stored = {}
        for name, content in self.pictures(data).items():
            uri = os.path.join(self.uri, name)
            with self.artifact_store.open(uri, "wb") as file:
                file.write(content)
            is_page = name.endswith(".html")
            stored[uri] = VisualizationType.HTML if is_page else VisualizationType.IMAGE
        return stored

    def extract_metadata(self, data: Any) -> dict[str, MetadataType]:
        """Return what a person wants to see of the artifact in the dashboard."""
        repeated = {"repeated_requests": self._repeated} if self._repeated else {}
        return {**self.facts(data), **repeated}

    def pictures(self, data: Any) -> dict[str, bytes]:
        """Return PNG or HTML files by name."""
        return {}

    def facts(self, data: Any) -> dict[str, MetadataType]:
        """Return the artifact's metadata."""
        return {}
