"""Maps ``Artifact.save`` and ``load`` to ZenML's artifact store, with metadata and pictures.

A local store is written and read in place, so that arrays stay memory-mapped. What lies in a remote
store stands in a temporary directory meanwhile, from where it is sent, or mapped, in chunks.
"""

import json
import os
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType
from zenml.utils import io_utils

from cv_factory.artifacts.artifact import Artifact
from cv_factory.artifacts.remote import artifact_exists, download_artifact, upload_artifact
from cv_factory.errors import ArtifactError
from cv_factory.reporting.html_page import render_html
from cv_factory.reporting.page import Block, Header, Table, facts_table

_PLAIN = (str, int, float)


class ArtifactMaterializer(BaseMaterializer):
    """Stores an ``Artifact``; subclasses name its class, its metadata and its pictures."""

    SKIP_REGISTRATION: ClassVar[bool] = True
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA
    #: Modules that held the type before it moved: existing ZenML stores name them.
    FORMER_MODULES: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let ZenML import the type under its former modules."""
        super().__init_subclass__(**kwargs)
        for name in cls.FORMER_MODULES:
            sys.modules.setdefault(name, sys.modules[cls.ASSOCIATED_TYPES[0].__module__])

    def save(self, data: Artifact) -> None:
        """Write an artifact to the artifact store.

        Raises:
            ArtifactError: A remote store cannot be written.
        """
        if not io_utils.is_remote(self.uri):
            data.save(Path(self.uri))
            return
        with TemporaryDirectory(prefix="cv-factory-") as temporary:
            data.save(Path(temporary))
            for kind, folder in _headers(type(data)):
                if not (Path(temporary) / folder).exists():
                    continue
                uri = os.path.join(self.uri, folder).rstrip("/")
                upload_artifact(Path(temporary) / folder, kind, self._filesystem, uri)

    def load(self, data_type: type[Artifact]) -> Artifact:
        """Read an artifact from the artifact store.

        What came from a remote store is mapped from files without a name: the kernel frees them
        when nothing uses them any more, also after a crash.

        Raises:
            ArtifactError: The stored files are damaged, incomplete or of another version.
        """
        if not io_utils.is_remote(self.uri):
            return data_type.load(Path(self.uri))
        with TemporaryDirectory(prefix="cv-factory-") as temporary:
            for kind, folder in _headers(data_type):
                uri = os.path.join(self.uri, folder).rstrip("/")
                is_optional = folder in data_type.OPTIONAL_PARTS
                if is_optional and not artifact_exists(self._filesystem, uri, kind):
                    continue
                (Path(temporary) / folder).mkdir(exist_ok=True)
                download_artifact(self._filesystem, uri, kind, Path(temporary) / folder)
            return data_type.load(Path(temporary))

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
        """Write ``pictures`` beside the files; where there are none, a page of the facts."""
        stored = {}
        for name, content in (self.pictures(data) or {"summary.html": self.page(data)}).items():
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

    def page(self, data: Any, counts: Table | None = None, *, without: str = "") -> bytes:
        """Return an HTML page of the artifact's facts.

        Args:
            data: The artifact.
            counts: Shown below the facts.
            without: Pattern of the names of facts that ``counts`` shows.
        """
        title = type(data).KIND.replace("_", " ").capitalize()
        facts = {
            name.removeprefix("n_").replace("_", " "): value
            if isinstance(value, _PLAIN)
            else json.dumps(value)
            for name, value in self.facts(data).items()
            if not fnmatchcase(name, without)
        }
        blocks: list[Block] = [facts_table(facts), *([counts] if counts else [])]
        return render_html(title, Header(title), [], [("Facts", blocks)]).encode()


def _headers(data_type: type[Artifact]) -> Iterator[tuple[str, str]]:
    """Yield kind and subdirectory of each header; the artifact's own, which ends it, last."""
    for folder, part in data_type.PARTS.items():
        yield part.KIND, folder
    yield data_type.KIND, ""
