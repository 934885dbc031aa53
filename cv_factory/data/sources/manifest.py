"""A CSV or Parquet table with one row an image: path, label and, if given, split and group."""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from cv_factory.config.data import DataConfig, FetchConfig, ManifestConfig
from cv_factory.data.sources._listed import ListedSource
from cv_factory.data.sources._listing import ListedImage, Listing
from cv_factory.data.sources._references import ReferencedImages
from cv_factory.data.sources._rows import RowReader
from cv_factory.data.sources._tables import Table, open_table
from cv_factory.data.storage.environment import expand
from cv_factory.data.storage.fetch import Fetcher, hide_query
from cv_factory.data.storage.stores import FsspecStore, ImageStore, open_store, parse_scheme
from cv_factory.errors import ImageError, SourceError

_MAX_FETCHED_MANIFEST = 2 * 2**30
_ENCODING_HINT = "name its encoding: --set data.manifest.encoding=ENCODING"


class ManifestSource(ListedSource):
    """Images that a table names."""

    def __init__(self, config: DataConfig, store: ImageStore | None = None) -> None:
        """Read the table.

        Args:
            config: ``path`` is the table; sections ``manifest`` and ``fetch``.
            store: Holds the table (``path`` in it) and the images, where it is open already.

        Raises:
            SourceError: The table does not exist, is not readable, or lacks a column.
        """
        section = config.manifest or ManifestConfig()
        self._path = config.path or ""
        is_remote = parse_scheme(self._path) in ("http", "https")
        self._name = hide_query(self._path) if is_remote else self._path
        with ExitStack() as on_error:
            self._fetcher = Fetcher(config.fetch or FetchConfig(), home=self._path)
            on_error.callback(self._fetcher.close)
            folder = self._name.rpartition("/")[0]
            root = section.root or folder or ("/" if self._name.startswith("/") else ".")
            self._images = ReferencedImages(
                store or _open_root(root, config),
                section,
                "data.manifest",
                fetcher=self._fetcher,
                max_bytes=config.max_bytes,
                storage_options=config.storage_options,
            )
            opened = (
                store.open(self._path) if isinstance(store, FsspecStore) else self._open(config)
            )
            with opened as file:
                table = open_table(file, self._name, section.encoding, _ENCODING_HINT)
                self._listing = Listing(self._listed(table, section))
            on_error.pop_all()
        if not len(self):
            raise SourceError(f"{self._name} lists no images.")

    @property
    def description(self) -> str:
        """The table, without a URL's query, which may hold a key."""
        return f"manifest {self._name}"

    @property
    def readers(self) -> int:
        """Number of threads that may read at once."""
        return self._images.readers

    def close(self) -> None:
        """Close connections."""
        self._fetcher.close()

    @contextmanager
    def _open(self, config: DataConfig) -> Iterator[IO[bytes]]:
        scheme = parse_scheme(self._path)
        try:
            if scheme in ("http", "https"):
                url = expand(self._path, "data.path")
                yield io.BytesIO(self._fetcher.get(url, _MAX_FETCHED_MANIFEST).content)
            elif not scheme or scheme == "file":
                with Path(self._path.removeprefix("file://")).expanduser().open("rb") as local:
                    yield local
            else:
                folder, _, base = self._path.rpartition("/")
                with FsspecStore.connect(folder, config.storage_options).open(base) as remote:
                    yield remote
        except ImageError as error:
            raise SourceError(f"The manifest {self._name} cannot be fetched: {error}.") from None
        except OSError as error:
            raise SourceError(
                f"The manifest {self._name} cannot be read: {error.strerror or error}."
            ) from None

    def _listed(self, table: Table, section: ManifestConfig) -> Iterator[ListedImage]:
        reader = RowReader(section.columns, table.columns, "data.manifest.columns", self._name)
        rows = table.rows(set(reader.names.values()))
        for image in reader.list_images(rows, self._images.resolve):
            version = "" if image.problem else self._images.version(image.name)
            yield replace(image, version=version)

    def _read(self, name: bytes) -> bytes:
        return self._images.read(name)

    def _location(self, name: bytes) -> str:
        return self._images.location(name)


def _open_root(root: str, config: DataConfig) -> ImageStore | str:
    """Return the store of a root, or the root itself where it is a folder over HTTP."""
    if parse_scheme(root) in ("http", "https"):
        return root
    return open_store(root, config.storage_options, follow_links=config.follow_links)


def open_source(config: DataConfig, *, labelled: bool) -> ManifestSource:
    """Open the table at ``path``; rows may have labels or none."""
    return ManifestSource(config)
