"""Images that DVC tracks: a folder or a manifest of a repository, at any revision."""

from contextlib import ExitStack

from cv_factory.config.data import DataConfig, DvcConfig
from cv_factory.data.sources._listed import ListedSource
from cv_factory.data.sources.folder import FolderSource
from cv_factory.data.sources.manifest import ManifestSource
from cv_factory.data.storage.environment import expand
from cv_factory.data.storage.stores import FsspecStore
from cv_factory.errors import SourceError, missing_extra

_TABLES = (".csv", ".tsv", ".parquet", ".pq")


def open_source(config: DataConfig, *, labelled: bool) -> ListedSource:
    """Open the path of a DVC repository as a folder or, where it is a table, as a manifest.

    Args:
        config: ``path``, and the sections ``dvc``, ``folder`` and ``manifest``.
        labelled: As for a ``FolderSource``.

    Raises:
        SourceError: DVC is not installed, or the repository, revision or path does not exist.
    """
    section = config.dvc or DvcConfig()
    path = (config.path or "").strip("/")
    try:
        from dvc.api import DVCFileSystem
        from dvc.exceptions import DvcException
        from dvc.scm import SCMError
    except ImportError:
        raise SourceError(f"Source 'dvc' needs DVC. {missing_extra('sources')}") from None
    at = f"{section.repo}@{section.revision}" if section.revision else section.repo
    with ExitStack() as on_error:
        try:
            repo = expand(section.repo, "data.dvc.repo")
            filesystem = DVCFileSystem(repo, rev=section.revision)
            on_error.callback(filesystem.close)
            if path.lower().endswith(_TABLES):
                folder, _, base = path.rpartition("/")
                store = FsspecStore(filesystem, f"/{folder}", f"dvc:{at}/{folder}")
                source: ListedSource = ManifestSource(
                    config.model_copy(update={"path": base, "storage_options": {}}), store
                )
            else:
                store = FsspecStore(filesystem, f"/{path}", f"dvc:{at}/{path}")
                source = FolderSource(store, config, labelled=labelled)
        except (DvcException, SCMError) as error:
            raise SourceError(f"The DVC repository {at} cannot be read: {error}.") from None
        return _ClosingSource(source, on_error.pop_all(), f"{path} of the DVC repository {at}")


class _ClosingSource(ListedSource):
    """A source that also closes the repository under it."""

    def __init__(self, source: ListedSource, opened: ExitStack, description: str) -> None:
        self._source = source
        self._listing = source._listing
        self._opened = opened
        self._description = description

    @property
    def description(self) -> str:
        return self._description

    @property
    def readers(self) -> int:
        return self._source.readers

    def close(self) -> None:
        self._source.close()
        self._opened.close()

    def _read(self, name: bytes) -> bytes:
        return self._source._read(name)

    def _location(self, name: bytes) -> str:
        return self._source._location(name)
