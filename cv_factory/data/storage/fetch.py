"""Fetches over HTTP from strangers: bounded in time and size, retried with patience.

Private addresses are refused unless they are allowed. They are checked where the connection is
opened, so a redirect, or a name that resolves to another address the second time, is checked as
well. Proxies of the environment are not used.
"""

import email.utils
import ipaddress
import random
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urljoin, urlsplit

import httpcore

from cv_factory.config.data import FetchConfig
from cv_factory.config.secrets import mask_secrets
from cv_factory.data.storage.environment import expand
from cv_factory.data.storage.stores import parse_scheme
from cv_factory.errors import ImageError

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_REDIRECTS = 5
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_RELATIVE_URL = re.compile(r"(?:[\w\-.~:/?@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")
_SUFFIX = re.compile(r"\.[A-Za-z]\w{2,4}$")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class _AddressRefusedError(Exception):
    """A host resolves to an address that must not be connected to."""


class _TemporaryError(Exception):
    """A failure that may pass; ``wait`` is how long the server asked to wait, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Fetched:
    """An answer: its body, its headers by lower-case name, and the URL that gave it."""

    content: bytes
    headers: Mapping[str, str]
    url: str


class _GuardedBackend(httpcore.NetworkBackend):
    """Opens TCP connections to public addresses only."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the host {host} is not known ({error})") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        for address in addresses:
            if not is_public(address):
                raise _AddressRefusedError(
                    f"{host} is at the private address {address} "
                    "(data.fetch.allow_private_addresses)"
                )
        # Connecting to the checked address, not to the name: it could resolve to another one.
        return self._backend.connect_tcp(addresses[0], port, timeout, local_address, socket_options)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also where it wraps an IPv4 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


class Fetcher:
    """A pool of connections; ``get`` may be called in any thread."""

    def __init__(
        self,
        config: FetchConfig,
        *,
        home: str = "",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            config: Limits.
            home: URL whose origin, and no other, is sent the configured headers.
            sleep: Waits between attempts.

        Raises:
            ConfigError: A header needs an environment variable that is not set.
        """
        self._config = config
        self._home = _origin(home)
        self._headers = {
            name: expand(value, f"data.fetch.headers.{name}")
            for name, value in config.headers.items()
        }
        self._sleep = sleep
        backend = None if config.allow_private_addresses else _GuardedBackend()
        self._pool = httpcore.ConnectionPool(
            max_connections=config.connections, network_backend=backend
        )

    @property
    def connections(self) -> int:
        """Maximum number of connections."""
        return self._config.connections

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def get(self, url: str, max_bytes: int) -> Fetched:
        """Fetch a URL; follow at most 5 redirects; retry what may pass.

        Raises:
            ImageError: It cannot be had; the message is the reason.
        """
        for attempt in range(self._config.retries + 1):
            try:
                return self._follow(url, max_bytes)
            except _TemporaryError as error:
                wait = (
                    compute_backoff_s(self._config, attempt) if error.wait is None else error.wait
                )
                if attempt == self._config.retries:
                    raise ImageError(f"{error}, after {attempt + 1} attempts") from None
                if wait > self._config.max_wait_seconds:
                    raise ImageError(
                        f"{error}, and the server asks to wait {wait:.0f} s, more than the "
                        f"{self._config.max_wait_seconds:g} s allowed"
                    ) from None
                self._sleep(wait)
            except _AddressRefusedError as error:
                raise ImageError(str(error)) from None
            except (httpcore.UnsupportedProtocol, ValueError) as error:
                raise ImageError(f"{mask_secrets(url)!r} cannot be fetched ({error})") from None
        raise AssertionError("unreachable")

    def _follow(self, url: str, max_bytes: int) -> Fetched:
        for _ in range(_MAX_REDIRECTS + 1):
            status, headers, content = self._request(url, max_bytes)
            if status in _REDIRECTS and "location" in headers:
                target = urljoin(url, headers["location"])
                if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                    raise ImageError(f"a redirect from https to {urlsplit(target).scheme}")
                url = target
            elif status == 200:
                return Fetched(content, headers, url)
            elif status in _MAY_PASS:
                raise _TemporaryError(f"HTTP status {status}", retry_after(headers))
            else:
                raise ImageError(f"HTTP status {status}")
        raise ImageError(f"more than {_MAX_REDIRECTS} redirects")

    def _request(self, url: str, max_bytes: int) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ImageError(f"{mask_secrets(url)!r} is no http or https URL")
        if parts.username or parts.password:
            raise ImageError("the URL holds a user name or password; use data.fetch.headers")
        sent: dict[bytes | str, bytes | str] = {
            "Host": parts.netloc,
            "User-Agent": "cv-factory",
            "Accept-Encoding": "identity",
        }
        if _origin(url) == self._home:
            sent.update(self._headers)
        seconds = self._config.timeout_seconds
        limits = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
        deadline = time.monotonic() + self._config.total_seconds
        try:
            with self._pool.stream(
                "GET", encode_url(url), headers=sent, extensions={"timeout": limits}
            ) as response:
                headers = {
                    k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers
                }
                if response.status != 200:
                    return response.status, headers, b""
                chunks = response.iter_stream()
                return 200, headers, _bounded(chunks, headers, max_bytes, deadline)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise _TemporaryError(str(error) or _words(type(error).__name__)) from None


def compute_backoff_s(config: FetchConfig, attempt: int) -> float:
    """Return the wait after a failed attempt (from 0): it doubles, give or take a half."""
    return config.backoff_seconds * (1 << attempt) * random.Random().uniform(0.5, 1.5)


def _bounded(
    chunks: Iterable[bytes], headers: Mapping[str, str], max_bytes: int, deadline: float
) -> bytes:
    """Join the chunks of a body unless they become too many or come too slowly."""
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise ImageError(f"{announced} bytes are more than the {max_bytes} allowed")
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > max_bytes:
            raise ImageError(f"more than the {max_bytes} bytes allowed")
        if time.monotonic() > deadline:
            raise _TemporaryError("the answer took too long (data.fetch.total_seconds)")
    return bytes(content)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a Retry-After header (RFC 9110, 10.2.3) asks for, if it does."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


def encode_url(url: str) -> str:
    """Percent-encode what may not stand in a URL (spaces, letters beyond ASCII), nothing twice.

    The fragment, which is never sent, is left out.

    Raises:
        ValueError: It is no URL.
    """
    parts = urlsplit(url)
    host = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    path, query = (_STRAY_PERCENT.sub("%25", part) for part in (parts.path, parts.query))
    path = quote(path, safe="/%:@!$&'()*+,;=~-._")
    query = quote(query, safe="/%:@!$&'()*+,;=~-._?")
    return f"{parts.scheme}://{host}{path or '/'}{'?' + query if query else ''}"


def join_url(base: str, reference: str) -> str:
    """Return the URL of a reference in a listing that lies at ``base``.

    A relative reference with a '#', or with signs that no URL has, such as blanks, is the name of a
    file: all its signs belong to the name.

    Raises:
        ValueError: It is no URL.
    """
    if parse_scheme(reference) or reference.startswith("//"):
        return urljoin(base, reference)
    path = reference.replace("\\", "/")
    if _is_file_name(path):
        return urljoin(base, quote(path, safe="/"))
    # Without "./", what stands before a colon would be a scheme.
    return urljoin(base, f"./{path}" if ":" in path.partition("/")[0] else path)


def _is_file_name(reference: str) -> bool:
    """Whether a relative reference is a file's name and not a URL's path and query."""
    if _RELATIVE_URL.fullmatch(reference):
        return False
    # Blanks in what looks like a query are no proof: the end must be a file's, too.
    return "#" in reference or "?" not in reference or bool(_SUFFIX.search(reference))


def hide_query(url: str) -> str:
    """Return a URL without its query, which may hold a key."""
    return url.partition("?")[0]


def _words(name: str) -> str:
    return {"ConnectTimeout": "no connection in time", "ReadTimeout": "no answer in time"}.get(
        name, name
    )
