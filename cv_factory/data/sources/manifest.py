"""A CSV or Parquet table with one row an image: path, label and, if given, split and group."""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import IO, Any

from cv_factory.config.data import DataConfig, FetchConfig, ManifestConfig
from cv_factory.data.sources._listed import ListedSource
from cv_factory.data.sources._listing import ListedImage, Listing
from cv_factory.data.sources._references import ReferencedImages, RowReader
from cv_factory.data.storage.fetch import Fetcher
from cv_factory.data.storage.stores import FsspecStore, ImageStore, LocalStore, parse_scheme
from cv_factory.errors import ImageError, SourceError

_MAX_FETCHED_MANIFEST = 2 * 2**30
_DELIMITERS = (",", ";", "\t")


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
        with ExitStack() as on_error:
            fetcher = Fetcher(config.fetch or FetchConfig(), home=self._path)
            on_error.callback(fetcher.close)
            self._fetcher = fetcher
            root = section.root or self._path.rpartition("/")[0] or "."
            self._over_http = parse_scheme(root) in ("http", "https")
            self._base = root
            schemes: set[str] = set(section.allowed_schemes)
            self._images = ReferencedImages(
                None if self._over_http else store or _folder(root, config),
                allowed_schemes=schemes | ({parse_scheme(root)} if self._over_http else set()),
                fetcher=fetcher,
                max_bytes=config.max_bytes,
                storage_options=config.storage_options,
            )
            opened = (
                store.open(self._path) if isinstance(store, FsspecStore) else self._open(config)
            )
            with opened as file:
                rows = read_table(file, self._path, section)
                self._listing = Listing(self._listed(rows, section))
            on_error.pop_all()
        if not len(self):
            raise SourceError(f"{self._path} lists no images.")

    @property
    def description(self) -> str:
        """The table."""
        return f"manifest {self._path}"

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
                yield io.BytesIO(self._fetcher.get(self._path, _MAX_FETCHED_MANIFEST).content)
            elif not scheme or scheme == "file":
                from pathlib import Path

                with Path(self._path.removeprefix("file://")).expanduser().open("rb") as local:
                    yield local
            else:
                folder, _, base = self._path.rpartition("/")
                with FsspecStore.connect(folder, config.storage_options).open(base) as remote:
                    yield remote
        except ImageError as error:
            raise SourceError(f"The manifest {self._path} cannot be fetched: {error}.") from None
        except OSError as error:
            raise SourceError(
                f"The manifest {self._path} cannot be read: {error.strerror or error}."
            ) from None

    def _listed(
        self, rows: tuple[list[str], Iterator[dict[str, Any]]], section: ManifestConfig
    ) -> Iterator[ListedImage]:
        columns, values = rows
        reader = RowReader(section.columns, columns, "data.manifest.columns")
        for row in values:
            image = reader.listed(row)
            if self._over_http or image.problem:
                yield image
            else:
                yield replace(image, version=self._images.version(image.name))

    def _read(self, name: bytes) -> bytes:
        if self._over_http and not parse_scheme(name.decode()):
            from urllib.parse import quote

            from cv_factory.data.storage.stores import check_relative

            name = f"{self._base}/{quote(check_relative(name.decode()))}".encode()
        return self._images.read(name)

    def _location(self, name: bytes) -> str:
        return self._images.location(name)


def _folder(root: str, config: DataConfig) -> ImageStore:
    if not parse_scheme(root) or parse_scheme(root) == "file":
        return LocalStore(root.removeprefix("file://"))
    return FsspecStore.connect(root, config.storage_options)


def read_table(
    file: IO[bytes], name: str, section: ManifestConfig
) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Open a CSV or Parquet table.

    Args:
        file: The open table.
        name: Its name; ``.parquet`` and ``.pq`` are Parquet, everything else is CSV.
        section: Says which columns are read.

    Returns:
        The table's columns, and an iterator over its rows by column name, selected columns only.

    Raises:
        SourceError: It is no such table; also raised by the iterator.
    """
    selected = _select_columns(section)
    if name.lower().endswith((".parquet", ".pq")):
        return _parquet(file, name, selected)
    return _csv(file, name, selected)


def _select_columns(section: ManifestConfig) -> set[str]:
    columns = section.columns
    names = {columns.image, columns.label, columns.id, columns.split, columns.group}
    return {name for name in names if name} | {"split", "group"}


def _parquet(
    file: IO[bytes], name: str, selected: set[str]
) -> tuple[list[str], Iterator[dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{name} is not a readable Parquet table ({error}).") from None
    columns = list(table.schema_arrow.names)

    def rows() -> Iterator[dict[str, Any]]:
        try:
            for batch in table.iter_batches(4096, columns=[c for c in columns if c in selected]):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{name} is damaged ({error}).") from None

    return columns, rows()


def _csv(
    file: IO[bytes], name: str, selected: set[str]
) -> tuple[list[str], Iterator[dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.csv as pc

    start = file.read(65_536)
    file.seek(0)
    if not start.strip():
        raise SourceError(
            f"{name} is empty; expected a table with a header, such as image_path,label."
        )
    delimiter = max(_DELIMITERS, key=lambda d: start.split(b"\n", 1)[0].count(d.encode()))
    try:
        header = pc.open_csv(
            io.BytesIO(start.split(b"\n", 1)[0] + b"\n"),
            parse_options=pc.ParseOptions(delimiter=delimiter),
        ).schema.names
        if repeated := {column for column in header if header.count(column) > 1}:
            raise SourceError(f"{name} has the column {min(repeated)!r} twice.")
        stream = pc.open_csv(
            file,
            parse_options=pc.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pc.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                include_columns=[column for column in header if column in selected],
            ),
        )
    except UnicodeDecodeError:
        raise SourceError(f"{name} is not UTF-8; save the table as UTF-8.") from None
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{name} is not a readable CSV table ({error}).") from None

    def rows() -> Iterator[dict[str, Any]]:
        try:
            for batch in stream:
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{name} is damaged ({error}).") from None

    return list(header), rows()


def open_source(config: DataConfig, *, labelled: bool) -> ManifestSource:
    """Open the table at ``path``; rows may have labels or none."""
    return ManifestSource(config)
