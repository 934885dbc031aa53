"""A database query with one row an image: its path or URL, or its bytes."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from cv_factory.config.data import DataConfig, FetchConfig, SqlConfig
from cv_factory.data.sources import ImageRecord
from cv_factory.data.sources._listed import ListedSource
from cv_factory.data.sources._listing import ListedImage, Listing
from cv_factory.data.sources._references import ReferencedImages, RowReader
from cv_factory.data.storage.environment import expand
from cv_factory.data.storage.fetch import Fetcher
from cv_factory.data.storage.stores import open_store, printable
from cv_factory.errors import DataError, ImageError, SourceError, missing_extra

_ROWS_AT_ONCE = 64
_LISTED_AT_ONCE = 10_000


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
        self._url = _url(section)
        with ExitStack() as opened:
            try:
                self._connect(config, section, opened)
                self._list(section)
            except (sa.exc.SQLAlchemyError, ImportError) as error:
                raise SourceError(f"{self.description}: {_reason(error)}") from None
            self._opened = opened.pop_all()

    @property
    def description(self) -> str:
        """The database, without a password."""
        return f"database {self._url.render_as_string(hide_password=True)}"

    @property
    def readers(self) -> int:
        """Number of threads that may read at once."""
        return self._images.readers

    def close(self) -> None:
        """Close the connection and give up the transaction."""
        self._opened.close()

    def _connect(self, config: DataConfig, section: SqlConfig, opened: ExitStack) -> None:
        engine = sa.create_engine(self._url, poolclass=sa.pool.NullPool)
        opened.callback(engine.dispose)
        self._connection = opened.enter_context(engine.connect())
        fetcher = Fetcher(config.fetch or FetchConfig())
        opened.callback(fetcher.close)
        self._images = ReferencedImages(
            open_store(section.root, config.storage_options) if section.root else None,
            allowed_schemes=section.allowed_schemes,
            fetcher=fetcher,
            max_bytes=config.max_bytes,
            storage_options=config.storage_options,
        )

    def _list(self, section: SqlConfig) -> None:
        query = section.query.strip().rstrip(";")
        available = self._columns(query)
        self._reader = RowReader(section.columns, available, "data.sql.columns")
        names = self._reader.names
        self._rows = sa.text(query).columns(*(sa.column(name) for name in available)).subquery("q")
        sample = self._connection.execute(sa.select(self._rows.c[names["image"]]).limit(1)).first()
        self._in_database = sample is not None and isinstance(sample[0], bytes | memoryview)
        if self._in_database and "id" not in names:
            raise SourceError(
                f"{self.description}: {names['image']!r} holds the images themselves; name the "
                "column that identifies a row with data.sql.columns.id."
            )
        self._listing = Listing(self._listed())
        repeated = self._listing.repeated_id()
        if self._in_database and repeated is not None:
            raise SourceError(
                f"{self.description}: the id {repeated!r} stands in more than one row "
                f"(data.sql.columns.id is {names['id']!r})."
            )
        if not len(self):
            raise SourceError(f"{self.description}: the query returns no rows.")

    def _columns(self, query: str) -> list[str]:
        """Return the names of the columns of the query, by asking for none of its rows."""
        wrapped: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(
            sa.text(f"({query}) AS q")
        )
        return list(self._connection.execute(wrapped.limit(0)).keys())

    def _listed(self) -> Iterator[ListedImage]:
        names = self._reader.names
        selected = {n for role, n in names.items() if role != "image" or not self._in_database}
        columns = [self._rows.c[name] for name in sorted(selected)]
        streamed = self._connection.execution_options(yield_per=_LISTED_AT_ONCE)
        for row in streamed.execute(sa.select(*columns)).mappings():
            values: dict[str, Any] = dict(row)
            if self._in_database:
                values[names["image"]] = values[names["id"]]
            image = self._reader.listed(values)
            if self._in_database or image.problem:
                yield image
            else:
                yield replace(image, version=self._images.version(image.name))

    def records(self, indices: npt.NDArray[np.int64]) -> Iterator[ImageRecord]:
        """Yield the records; images in the database are fetched a few dozen at a time."""
        if not self._in_database:
            yield from super().records(indices)
            return
        for start in range(0, len(indices), _ROWS_AT_ONCE):
            rows = list(self._listing.rows(indices[start : start + _ROWS_AT_ONCE]))
            contents = self._fetch([row.id for row in rows])
            for row in rows:
                yield ImageRecord(
                    id=row.id,
                    location=f"{self.description}#{row.id}",
                    label=row.label,
                    content=partial(self._checked, contents.get(row.id)),
                    official_split=row.split,
                    group=row.group,
                )

    def _fetch(self, ids: list[str]) -> dict[str, Any]:
        names = self._reader.names
        id_, image = self._rows.c[names["id"]], self._rows.c[names["image"]]
        if self._id_type in (int, uuid.UUID, str):
            # Compared as what they are, so that the database can use its index.
            has_id = id_.in_([self._id_type(i) for i in ids])
        else:
            has_id = sa.cast(id_, sa.Text).in_(ids)
        query = sa.select(id_, image).where(has_id)
        try:
            return {str(key): value for key, value in self._connection.execute(query)}
        except sa.exc.SQLAlchemyError as error:
            raise DataError(f"{self.description}: {_reason(error)}") from None

    @cached_property
    def _id_type(self) -> Any:
        """The Python type of the id column's values."""
        id_ = self._rows.c[self._reader.names["id"]]
        return type(self._connection.execute(sa.select(id_).limit(1)).scalar())

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


def _url(section: SqlConfig) -> sa.URL:
    try:
        url = sa.make_url(expand(section.url, "data.sql.url"))
    except sa.exc.ArgumentError:
        raise SourceError("data.sql.url is no SQLAlchemy URL.") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    database = url.database or ""
    is_file = url.get_backend_name() == "sqlite" and database not in ("", ":memory:")
    if is_file and not database.startswith("file:") and not Path(database).is_file():
        # SQLite would create it.
        raise SourceError(f"The database file {database} does not exist.")
    return url


def _reason(error: Exception) -> str:
    """Return the database's own words, in one line."""
    if isinstance(error, ImportError):
        return f"{error}. {missing_extra('sources')}"
    original = getattr(error, "orig", None) or error
    return " ".join(str(original).split())


def open_source(config: DataConfig, *, labelled: bool) -> SqlSource:
    """Open the query of the section ``sql``; rows may have labels or none."""
    return SqlSource(config)
