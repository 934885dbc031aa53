"""A listing of images over HTTP, as JSON or CSV, page by page; the images lie at its URLs."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from cv_factory.config.data import DataConfig, FetchConfig, HttpConfig, ManifestConfig
from cv_factory.data.sources._listed import ListedSource
from cv_factory.data.sources._listing import ListedImage, Listing
from cv_factory.data.sources._references import RowReader
from cv_factory.data.sources.manifest import read_table
from cv_factory.data.storage.fetch import Fetched, Fetcher
from cv_factory.data.storage.stores import printable
from cv_factory.errors import ImageError, SourceError

_MAX_PAGE_BYTES = 256 * 2**20
_NEXT_LINK = re.compile(r"<([^>]*)>[^,]*;\s*rel=\"?next\"?", re.IGNORECASE)


class HttpSource(ListedSource):
    """Images that a web service lists."""

    def __init__(self, config: DataConfig) -> None:
        """Fetch the listing, all pages of it.

        Raises:
            SourceError: A page cannot be had or is not as configured.
        """
        self._url = config.path or ""
        self._section = config.http or HttpConfig()
        self._max_bytes = config.max_bytes
        with ExitStack() as on_error:
            self._fetcher = Fetcher(config.fetch or FetchConfig(), home=self._url)
            on_error.callback(self._fetcher.close)
            self._listing = Listing(self._listed())
            on_error.pop_all()
        if not len(self):
            raise SourceError(f"{self._url} lists no images.")

    @property
    def description(self) -> str:
        """The listing, without its query, which may hold a key."""
        return f"listing {urlunsplit(urlsplit(self._url)._replace(query=''))}"

    @property
    def readers(self) -> int:
        """Number of connections that read at once."""
        return self._fetcher.connections

    def close(self) -> None:
        """Close the connections."""
        self._fetcher.close()

    def _listed(self) -> Iterator[ListedImage]:
        for page_url, rows in self._pages():
            reader: RowReader | None = None
            for row in rows:
                if reader is None or self._section.columns.split or self._section.columns.group:
                    reader = RowReader(self._section.columns, list(row), "data.http.columns")
                image = reader.listed(row)
                url = urljoin(page_url, printable(image.name)) if image.name else ""
                yield ListedImage(
                    image.id, url.encode(), image.label, image.split, image.group,
                    problem=image.problem,
                )  # fmt: skip

    def _pages(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield each page's URL and rows."""
        url: str | None = self._page_url(1)
        seen: set[str] = set()
        while url is not None:
            if url in seen or len(seen) >= self._section.max_pages:
                raise SourceError(
                    f"The listing {self._url} comes back to {url} or has more pages than "
                    f"{self._section.max_pages} (data.http.max_pages)."
                )
            seen.add(url)
            try:
                page = self._fetcher.get(url, _MAX_PAGE_BYTES)
            except ImageError as error:
                raise SourceError(f"The listing {url} cannot be fetched: {error}.") from None
            rows, following = self._parse(page)
            yield page.url, rows
            if self._section.page_parameter:
                following = self._page_url(len(seen) + 1) if rows else None
            url = urljoin(page.url, following) if following else None

    def _page_url(self, number: int) -> str:
        if not self._section.page_parameter:
            return self._url
        parts = urlsplit(self._url)
        query = [(k, v) for k, v in parse_qsl(parts.query) if k != self._section.page_parameter]
        query.append((self._section.page_parameter, str(number)))
        return urlunsplit(parts._replace(query=urlencode(query)))

    def _parse(self, page: Fetched) -> tuple[list[dict[str, Any]], str | None]:
        """Return a page's rows and the next page's URL."""
        link = _NEXT_LINK.search(page.headers.get("link", ""))
        following = link[1] if link else None
        kind = self._section.format
        if kind is None:
            kind = "csv" if "csv" in page.headers.get("content-type", "") else "json"
        if kind == "csv":
            if not page.content.strip():
                return [], following
            manifest = ManifestConfig(columns=self._section.columns)
            return list(read_table(io.BytesIO(page.content), page.url, manifest)[1]), following
        return self._parse_json(page, following)

    def _parse_json(
        self, page: Fetched, following: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        try:
            body = json.loads(page.content)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise SourceError(f"{page.url} is not JSON ({error}).") from None
        items = _at(body, self._section.items_key) if self._section.items_key else body
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            keys = f"; it has the keys {', '.join(body)}" if isinstance(body, dict) else ""
            raise SourceError(
                f"{page.url} holds no list of objects at {self._section.items_key or 'its top'}"
                f"{keys} (data.http.items_key)."
            )
        if self._section.next_key:
            cursor = _at(body, self._section.next_key)
            if cursor is not None and not isinstance(cursor, str):
                raise SourceError(f"{page.url}: {self._section.next_key} is no URL: {cursor!r}.")
            following = cursor or None
        return items, following

    def _read(self, name: bytes) -> bytes:
        return self._fetcher.get(printable(name), self._max_bytes).content

    def _location(self, name: bytes) -> str:
        return printable(name)


def _at(body: object, key: str) -> object:
    """Return what stands at a dotted key; None where there is nothing."""
    for part in key.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body


def open_source(config: DataConfig, *, labelled: bool) -> HttpSource:
    """Open the listing at ``path``; rows may have labels or none."""
    return HttpSource(config)
