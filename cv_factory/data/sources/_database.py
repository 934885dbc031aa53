"""A connection to a database of images, opened again after failures that may pass."""

import math
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import sqlalchemy as sa

from cv_factory.config.data import FetchConfig
from cv_factory.data.storage.environment import expand
from cv_factory.data.storage.fetch import compute_backoff_s
from cv_factory.errors import DataError, SourceError, missing_extra

T = TypeVar("T")

#: Beginnings of SQLSTATE: connection, rollback (deadlocks), resources, the server's shutdown.
_TEMPORARY_STATES = ("08", "40", "53", "57P")
_TEMPORARY_SQLITE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
#: Of a connection that is refused for good; drivers give these no SQLSTATE.
_REFUSED_FOR_GOOD = re.compile(r"authenti|password|does not exist|pg_hba|role|unable to open", re.I)


class Database:
    """Runs queries over one connection; a failure that may pass costs a new one."""

    def __init__(
        self, url: str, retry: FetchConfig, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            url: SQLAlchemy URL; ``{env:NAME}`` is read from the environment.
            retry: Retries, waits and the time to connect.
            sleep: Waits between attempts.

        Raises:
            ConfigError: The URL needs an environment variable that is not set.
            SourceError: The URL is none, its driver is missing, or its file does not exist.
        """
        self._url = _parse_url(url)
        # Parameters that the environment gives; the configuration admits no other secrets.
        self._hidden = {k for k, v in parse_qsl(url.partition("?")[2]) if "{env:" in v}
        self._retry = retry
        self._sleep = sleep
        self._connection: sa.Connection | None = None
        arguments: dict[str, Any] = {}
        if (
            self._url.get_backend_name() == "postgresql"
            and "connect_timeout" not in self._url.query
        ):
            arguments["connect_timeout"] = math.ceil(retry.timeout_seconds)
        try:
            self._engine = sa.create_engine(
                self._url, poolclass=sa.pool.NullPool, connect_args=arguments
            )
        except ImportError as error:
            hint = missing_extra("sources") if "psycopg" in str(error) else "Install it."
            raise SourceError(f"{self.description} needs a driver: {error}. {hint}") from None
        except sa.exc.SQLAlchemyError as error:
            raise SourceError(f"{self.description}: {error}.") from None

    @property
    def description(self) -> str:
        """The database, without its secrets."""
        query = {k: "***" if k in self._hidden else v for k, v in self._url.query.items()}
        return f"database {self._url.set(query=query).render_as_string(hide_password=True)}"

    def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Return what a function of the connection returns; call it again where it may help.

        Raises:
            DataError: A query fails; the message is the database's.
        """
        for attempt in range(self._retry.retries + 1):
            try:
                if self._connection is None:
                    self._connection = self._engine.connect()
                return work(self._connection)
            except sa.exc.SQLAlchemyError as error:
                self._disconnect()
                message = f"{self.description}: {_describe(error)}"
                if not _is_temporary(error):
                    raise DataError(message) from None
                if attempt == self._retry.retries:
                    raise DataError(f"{message}, after {attempt + 1} attempts") from None
            self._sleep(compute_backoff_s(self._retry, attempt))
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connection and give up the transaction."""
        self._disconnect()
        self._engine.dispose()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _parse_url(text: str) -> sa.URL:
    try:
        url = sa.make_url(expand(text, "data.sql.url"))
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


def _is_temporary(error: sa.exc.SQLAlchemyError) -> bool:
    """Whether the same query may succeed a little later."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        # The low byte is the primary code (https://www.sqlite.org/rescode.html).
        code = getattr(error.orig, "sqlite_errorcode", 0)
        return code & 0xFF in _TEMPORARY_SQLITE
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_TEMPORARY_STATES)
    is_connecting = error.statement is None and isinstance(error, sa.exc.OperationalError)
    return is_connecting and not _REFUSED_FOR_GOOD.search(str(error.orig))


def _describe(error: sa.exc.SQLAlchemyError) -> str:
    """Return the database's own words, in one line."""
    original = getattr(error, "orig", None) or error
    return " ".join(str(original).split())
