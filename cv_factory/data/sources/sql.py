"""A database query with one row an image: its path or URL, or its bytes."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from cv_factory.config.data import DataConfig, FetchConfig, SqlConfig
from cv_factory.data.sources import ImageRecord
from cv_factory.data.sources._database import Database
from cv_factory.data.sources._listed import ListedSource
from cv_factory.data.sources._listing import ListedImage, Listing
from cv_factory.data.sources._references import ReferencedImages
from cv_factory.data.sources._rows import RowReader, parse_text
from cv_factory.data.storage.fetch import Fetcher
from cv_factory.data.storage.stores import open_store, printable
from cv_factory.errors import DataError, ImageError, SourceError

_ROWS_AT_ONCE = 64
_LISTED_AT_ONCE = 10_000
#: By the type of an id in the database: from the id as text back to that type.
_ID_TYPES: dict[type, Callable[[str], Any]] = {
    int: int,
    float: int,
    Decimal: int,
    str: str,
    bytes: str.encode,
    uuid.UUID: uuid.UUID,
}


class SqlSource(ListedSource):
    """Images that a query returns. The query is wrapped, so that it can only be a SELECT."""

    def __init__(self, config: DataConfig) -> None:
        """Connect and list the rows, without the images' bytes.

        Raises:
            ConfigError: The URL needs an environment variable that is not set.
            SourceError: The database cannot be reached, or the query fails or lacks a column.
        """
        section = config.sql
        assert section is not None  # DataConfig demands it
        self._max_bytes = config.max_bytes
        fetch = config.fetch or FetchConfig()
        with ExitStack() as opened:
            self._database = Database(section.url, fetch)
            opened.callback(self._database.close)
            fetcher = Fetcher(fetch)
            opened.callback(fetcher.close)
            self._images = ReferencedImages(
                open_store(section.root, config.storage_options, follow_links=config.follow_links)
                if section.root
                else None,
                section,
                "data.sql",
                fetcher=fetcher,
                max_bytes=config.max_bytes,
                storage_options=config.storage_options,
            )
            try:
                self._database.run(partial(self._list, section))
            except DataError as error:
                raise SourceError(str(error)) from None
            self._opened = opened.pop_all()

    @property
    def description(self) -> str:
        """The database, without a password."""
        return self._database.description

    @property
    def readers(self) -> int:
        """Number of threads that may read at once."""
        return self._images.readers

    def close(self) -> None:
        """Close the connection and give up the transaction."""
        self._opened.close()

    def _list(self, section: SqlConfig, connection: sa.Connection) -> None:
        query = section.query.strip().rstrip(";")
        available = _list_columns(query, connection)
        self._reader = RowReader(section.columns, available, "data.sql.columns", self.description)
        names = self._reader.names
        self._rows = sa.text(query).columns(*(sa.column(name) for name in available)).subquery("q")
        image = self._rows.c[names["image"]]
        sample = connection.scalar(sa.select(image).where(image.is_not(None)).limit(1))
        self._in_database = isinstance(sample, bytes | memoryview) and not _is_path(bytes(sample))
        if self._in_database and "id" not in names:
            raise SourceError(
                f"{self.description}: {names['image']!r} holds the images themselves; name the "
                "column that identifies a row with data.sql.columns.id."
            )
        self._listing = Listing(self._listed(connection))
        if self._in_database:
            id_ = self._rows.c[names["id"]]
            self._id_type = type(connection.scalar(sa.select(id_).limit(1)))
        repeated = self._listing.repeated_id()
        if self._in_database and repeated is not None:
            raise SourceError(
                f"{self.description}: the id {repeated!r} stands in more than one row "
                f"(data.sql.columns.id is {names['id']!r})."
            )
        if not len(self):
            raise SourceError(f"{self.description}: the query returns no rows.")

    def _listed(self, connection: sa.Connection) -> Iterator[ListedImage]:
        names = self._reader.names
        selected = {n for role, n in names.items() if role != "image" or not self._in_database}
        columns = [self._rows.c[name] for name in sorted(selected)]
        streamed = connection.execution_options(yield_per=_LISTED_AT_ONCE)
        rows: Iterable[Mapping[str, Any]] = (
            dict(row) for row in streamed.execute(sa.select(*columns)).mappings()
        )
        if self._in_database:
            rows = ({**row, names["image"]: row[names["id"]]} for row in rows)
            yield from self._reader.list_images(rows)
            return
        for image in self._reader.list_images(rows, self._images.resolve):
            version = "" if image.problem else self._images.version(image.name)
            yield replace(image, version=version)

    def records(self, indices: npt.NDArray[np.int64]) -> Iterator[ImageRecord]:
        """Yield the records; images in the database are fetched a few dozen at a time."""
        if not self._in_database:
            yield from super().records(indices)
            return
        for start in range(0, len(indices), _ROWS_AT_ONCE):
            rows = list(self._listing.rows(indices[start : start + _ROWS_AT_ONCE]))
            contents = self._fetch([row.id for row in rows if not row.problem])
            for row in rows:
                yield ImageRecord(
                    id=row.id,
                    location=f"{self.description}#{row.id}",
                    label=row.label,
                    content=partial(self._checked, contents.get(row.id)),
                    official_split=row.split,
                    group=row.group,
                    problem=row.problem,
                )

    def _fetch(self, ids: list[str]) -> dict[str, Any]:
        names = self._reader.names
        id_, image = self._rows.c[names["id"]], self._rows.c[names["image"]]

        def fetch(connection: sa.Connection) -> dict[str, Any]:
            rows = connection.execute(sa.select(id_, image).where(self._has_id(ids)))
            return {parse_text(key): value for key, value in rows}

        return self._database.run(fetch)

    def _has_id(self, ids: list[str]) -> sa.ColumnElement[bool]:
        """Return the condition; compared as what they are, so that the database uses its index."""
        id_ = self._rows.c[self._reader.names["id"]]
        try:
            return id_.in_([_ID_TYPES[self._id_type](i) for i in ids])
        except (KeyError, ValueError):
            return sa.cast(id_, sa.Text).in_(ids)

    def _checked(self, value: object) -> bytes:
        if value is None:
            raise ImageError("the row holds no image, or is gone since the listing")
        if not isinstance(value, bytes | memoryview):
            raise ImageError(f"the column holds {type(value).__name__}, not the image's bytes")
        content = bytes(value)
        if len(content) > self._max_bytes:
            raise ImageError(f"{len(content)} bytes are more than the {self._max_bytes} allowed")
        return content

    def _read(self, name: bytes) -> bytes:
        return self._images.read(name)

    def _location(self, name: bytes) -> str:
        return self._images.location(name) if not self._in_database else printable(name)


def _list_columns(query: str, connection: sa.Connection) -> list[str]:
    """Return the names of the columns of a query, by asking for none of its rows."""
    wrapped: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(
        sa.text(f"({query}) AS q")
    )
    return list(connection.execute(wrapped.limit(0)).keys())


def _is_path(value: bytes) -> bool:
    """Whether bytes are text of one line, and so no image; an image may be empty."""
    try:
        return bool(value) and value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def open_source(config: DataConfig, *, labelled: bool) -> SqlSource:
    """Open the query of the section ``sql``; rows may have labels or none."""
    return SqlSource(config)
