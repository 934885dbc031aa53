"""What every materializer does: map a noun's ``save`` and ``load`` to the artifact store.

A local store is written and read in place, so that arrays stay memory-mapped. For a remote store
the files travel through a temporary directory, the header last: an interrupted upload has none.
"""

import os
import shutil
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType
from zenml.utils import io_utils

from cv_factory.progress import track

_CHUNK_BYTES = 8 * 2**20


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

    def save(self, data: Noun) -> None:
        """Write the noun to the artifact store."""
        if not io_utils.is_remote(self.uri):
            data.save(Path(self.uri))
            return
        with self.get_temporary_directory(delete_at_exit=True) as temporary:
            data.save(Path(temporary))
            files = [path for path in Path(temporary).rglob("*") if path.is_file()]
            names = sorted(
                (str(path.relative_to(temporary)) for path in files),
                key=lambda name: (name == self.HEADER, name),
            )
            for name in track(names, f"Uploading {self.HEADER.removesuffix('.json')}"):
                self._copy(os.path.join(temporary, name), os.path.join(self.uri, name))

    def load(self, data_type: type[Any]) -> Any:
        """Read the noun from the artifact store.

        Raises:
            ArtifactError: The stored files are damaged, incomplete or of another version.
        """
        if not io_utils.is_remote(self.uri):
            return data_type.load(Path(self.uri))
        with self.get_temporary_directory(delete_at_exit=False) as temporary:
            self._download(self.uri, temporary)
            return data_type.load(Path(temporary))

    def _download(self, source: str, target: str) -> None:
        """Copy a folder of the artifact store, with its folders."""
        for listed in self.artifact_store.listdir(source):
            name = os.path.basename(str(listed).rstrip("/"))
            inner, place = os.path.join(source, name), os.path.join(target, name)
            if self.artifact_store.isdir(inner):
                os.mkdir(place)
                self._download(inner, place)
            else:
                self._copy(inner, place)

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
        return self.facts(data)

    def pictures(self, data: Any) -> dict[str, bytes]:
        """Return PNG or HTML files by name."""
        return {}

    def facts(self, data: Any) -> dict[str, MetadataType]:
        """Return the artifact's metadata."""
        return {}

    def _copy(self, source: str, target: str) -> None:
        with (
            self.artifact_store.open(source, "rb") as reader,
            self.artifact_store.open(target, "wb") as writer,
        ):
            shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
