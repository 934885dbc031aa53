"""A listing of images over HTTP, as JSON or CSV, page by page; the images lie at its URLs."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from cv_factory.config.data import DataConfig, FetchConfig, HttpConfig
from cv_factory.config.secrets import mask_secrets
from cv_factory.data.sources._listed import ListedSource
from cv_factory.data.sources._listing import ListedImage, Listing
from cv_factory.data.sources._rows import RowReader, strip_blanks
from cv_factory.data.sources._tables import open_table
from cv_factory.data.storage.environment import expand, hide_variables
from cv_factory.data.storage.fetch import Fetched, Fetcher, encode_url, hide_query, join_url
from cv_factory.data.storage.stores import printable
from cv_factory.errors import ImageError, SourceError

_MAX_PAGE_BYTES = 256 * 2**20
_NEXT_LINK = re.compile(r"<([^>]*)>[^,]*;\s*rel=\"?next\"?", re.IGNORECASE)
_ENCODING_HINT = "let the server name its encoding: Content-Type: text/csv; charset=ENCODING"


@dataclass(frozen=True)
class _Page:
    """A page of a listing.

    Attributes:
        url: That it came from, after redirects.
        name: The same for errors, without the query.
        columns: Names of the columns.
        rows: By column name.
        next_reference: URL of the next page, also relative to this one; None after the last.
    """

    url: str
    name: str
    columns: list[str]
    rows: list[dict[str, Any]]
    next_reference: str | None


class HttpSource(ListedSource):
    """Images that a web service lists."""

    def __init__(self, config: DataConfig) -> None:
        """Fetch the listing, all pages of it.

        Raises:
            ConfigError: The URL needs an environment variable that is not set.
            SourceError: A page cannot be had or is not as configured.
        """
        self._path = config.path or ""
        self._url = expand(self._path, "data.path")
        self._name = hide_query(self._path)
        self._section = config.http or HttpConfig()
        self._max_bytes = config.max_bytes
        with ExitStack() as on_error:
            self._fetcher = Fetcher(config.fetch or FetchConfig(), home=self._url)
            on_error.callback(self._fetcher.close)
            self._listing = Listing(self._listed())
            on_error.pop_all()
        if not len(self):
            raise SourceError(f"{self._name} lists no images.")

    @property
    def description(self) -> str:
        """The listing, without its query, which may hold a key."""
        return f"listing {self._name}"

    @property
    def readers(self) -> int:
        """Number of connections that read at once."""
        return self._fetcher.connections

    def close(self) -> None:
        """Close the connections."""
        self._fetcher.close()

    def _listed(self) -> Iterator[ListedImage]:
        for page in self._pages():
            if not page.rows:
                continue
            reader = RowReader(self._section.columns, page.columns, "data.http.columns", page.name)
            for image in reader.list_images(page.rows, strip_blanks):
                try:
                    url = join_url(page.url, printable(image.name)) if image.name else ""
                except ValueError as error:
                    yield replace(image, problem=f"no valid URL ({error})")
                else:
                    yield replace(image, name=url.encode())

    def _pages(self) -> Iterator[_Page]:
        url: str | None = self._page_url(1)
        seen: set[str] = set()
        while url is not None:
            name = hide_variables(hide_query(url), self._path)
            if seen:
                name += f", page {len(seen) + 1}"
            if url in seen or len(seen) >= self._section.max_pages:
                raise SourceError(
                    f"The listing {self._name} comes back to a page ({name}) or has more pages "
                    f"than {self._section.max_pages} (data.http.max_pages)."
                )
            seen.add(url)
            try:
                fetched = self._fetcher.get(url, _MAX_PAGE_BYTES)
            except ImageError as error:
                raise SourceError(f"The listing {name} cannot be fetched: {error}.") from None
            page = self._parse(fetched, name)
            yield page
            following = page.next_reference
            if self._section.page_parameter:
                following = self._page_url(len(seen) + 1) if page.rows else None
            url = _join_page(page, following) if following else None

    def _page_url(self, number: int) -> str:
        if not self._section.page_parameter:
            return self._url
        parts = urlsplit(self._url)
        query = [(k, v) for k, v in parse_qsl(parts.query) if k != self._section.page_parameter]
        query.append((self._section.page_parameter, str(number)))
        return urlunsplit(parts._replace(query=urlencode(query)))

    def _parse(self, fetched: Fetched, name: str) -> _Page:
        link = _NEXT_LINK.search(fetched.headers.get("link", ""))
        header = Message()
        header["content-type"] = fetched.headers.get("content-type", "")
        kind = self._section.format
        if kind is None:
            kind = "csv" if "csv" in header["content-type"] else "json"
        page = _Page(fetched.url, name, [], [], link[1] if link else None)
        if kind == "json":
            return self._parse_json(fetched.content, page)
        if not fetched.content.strip():
            return page
        charset = header.get_param("charset")
        encoding = charset if isinstance(charset, str) else None
        table = open_table(io.BytesIO(fetched.content), name, encoding, _ENCODING_HINT)
        return replace(page, columns=table.columns, rows=list(table.rows(table.columns)))

    def _parse_json(self, content: bytes, page: _Page) -> _Page:
        try:
            body = json.loads(content)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise SourceError(f"{page.name} is not JSON ({error}).") from None
        items = _at(body, self._section.items_key) if self._section.items_key else body
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            keys = f"; it has the keys {', '.join(body)}" if isinstance(body, dict) else ""
            raise SourceError(
                f"{page.name} holds no list of objects at {self._section.items_key or 'its top'}"
                f"{keys} (data.http.items_key)."
            )
        following = page.next_reference
        if self._section.next_key:
            cursor = _at(body, self._section.next_key)
            if cursor is not None and not isinstance(cursor, str):
                raise SourceError(f"{page.name}: {self._section.next_key} is no URL: {cursor!r}.")
            following = cursor or None
        columns = list(dict.fromkeys(key for item in items for key in item))
        return replace(page, columns=columns, rows=items, next_reference=following)

    def _read(self, name: bytes) -> bytes:
        return self._fetcher.get(printable(name), self._max_bytes).content

    def _location(self, name: bytes) -> str:
        """Return the address that is asked, without its secrets."""
        url = hide_variables(printable(name), self._path)
        try:
            return mask_secrets(encode_url(url))
        except ValueError:
            return url


def _join_page(page: _Page, reference: str) -> str:
    try:
        return urljoin(page.url, reference)
    except ValueError as error:
        raise SourceError(f"{page.name}: the next page has no valid URL ({error}).") from None


def _at(body: object, key: str) -> object:
    """Return what stands at a dotted key; None where there is nothing."""
    for part in key.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body


def open_source(config: DataConfig, *, labelled: bool) -> HttpSource:
    """Open the listing at ``path``; rows may have labels or none."""
    return HttpSource(config)
