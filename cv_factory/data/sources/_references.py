"""Reads the images that a table's rows refer to: paths below a root, or URLs of allowed schemes."""

import unicodedata
from collections.abc import Iterator, Mapping
from typing import get_args
from urllib.parse import quote

from cv_factory.config.data import ImageScheme, TableConfig
from cv_factory.config.secrets import mask_secrets
from cv_factory.data.sources._rows import strip_blanks
from cv_factory.data.storage.environment import expand
from cv_factory.data.storage.fetch import Fetcher, encode_url
from cv_factory.data.storage.stores import (
    FsspecStore,
    ImageStore,
    check_relative,
    parse_scheme,
    printable,
)
from cv_factory.errors import ImageError

_SCHEMES: tuple[str, ...] = get_args(ImageScheme)


class ReferencedImages:
    """Turns a reference (a path or a URL) into bytes, and refuses what is not allowed."""

    def __init__(
        self,
        root: ImageStore | str | None,
        section: TableConfig,
        setting: str,
        *,
        fetcher: Fetcher,
        max_bytes: int,
        storage_options: Mapping[str, str | int | bool],
    ) -> None:
        """Set the limits.

        Args:
            root: What relative paths lie in: a store, or the URL of a folder over HTTP, whose
                scheme is allowed then; None where there are to be none.
            section: Says which URL schemes may be read.
            setting: Name of the section, for errors.
            fetcher: For ``http`` and ``https``; it refuses private addresses.
            max_bytes: Larger images are refused.
            storage_options: For the other schemes' file systems.
        """
        self._store = root if isinstance(root, ImageStore) else None
        self._base_url = root.rstrip("/") if isinstance(root, str) else None
        self._schemes: set[str] = set(section.allowed_schemes)
        if self._base_url is not None:
            self._schemes.add(parse_scheme(self._base_url))
        self._setting = setting
        self._fetcher = fetcher
        self._max_bytes = max_bytes
        self._options = storage_options

    def resolve(self, reference: str) -> str:
        """Return the reference by which ``read`` finds the image; as it is where none does.

        Tables of other systems hold absolute paths below the root, backslashes, blanks around a
        path, and names in another normal form of Unicode than the file system's.
        """
        stripped = strip_blanks(reference)
        if parse_scheme(stripped) in self._schemes:
            return stripped
        if self._base_url is not None:
            return stripped.replace("\\", "/")
        if self._store is None:
            return reference
        path = self._store.strip_root(reference)
        for spelling in _list_spellings(path):
            try:
                if self._store.has(check_relative(spelling)):
                    # A file called "cam::1.png" is no URL.
                    return f"./{spelling}" if parse_scheme(spelling) else spelling
            except ImageError:
                continue
        return path

    def read(self, name: bytes) -> bytes:
        """Return the image's bytes.

        Raises:
            ImageError: The reference is refused, or the image cannot be had.
        """
        reference = printable(name)
        scheme = parse_scheme(reference)
        if not scheme and self._store is not None:
            return self._store.read(self._check_relative(reference).encode(), self._max_bytes)
        if not scheme and self._base_url is None:
            raise ImageError(f"a relative path, but there is no root (set {self._setting}.root)")
        if scheme == "file":
            raise ImageError(f"the file does not lie below the root ({self._setting}.root)")
        if scheme and scheme not in self._schemes:
            allowed = f"{self._setting}.allowed_schemes"
            advice = f"add it to {allowed}" if scheme in _SCHEMES else f"{allowed} has no such one"
            raise ImageError(f"the scheme '{scheme}:' is not allowed ({advice})")
        if scheme in ("", "http", "https"):
            base_url = expand(self._base_url or "", f"{self._setting}.root")
            return self._fetcher.get(self._get_url(reference, base_url), self._max_bytes).content
        folder, _, base = reference.rpartition("/")
        store = FsspecStore.connect(folder, self._options, is_setting=False)
        return store.read(base.encode(), self._max_bytes)

    def version(self, name: bytes) -> str:
        """Return what changes when the image does; empty where only reading it tells."""
        reference = printable(name)
        scheme = parse_scheme(reference)
        if scheme:
            return "" if scheme in self._schemes else "refused"
        if self._base_url is not None:
            return ""
        if self._store is None:
            return "no root"
        try:
            return self._store.version(check_relative(reference).encode())
        except ImageError as error:
            return str(error)

    def location(self, name: bytes) -> str:
        """Return where an image lies, for people: the address asked, without its secrets."""
        reference = printable(name)
        scheme = parse_scheme(reference)
        if scheme in ("http", "https") or (not scheme and self._base_url is not None):
            try:
                return mask_secrets(encode_url(self._get_url(reference, self._base_url or "")))
            except (ImageError, ValueError):
                return reference
        return reference if scheme or self._store is None else self._store.location(name)

    def _get_url(self, reference: str, base_url: str) -> str:
        if parse_scheme(reference):
            return reference
        return f"{base_url}/{quote(self._check_relative(reference))}"

    def _check_relative(self, reference: str) -> str:
        try:
            return check_relative(reference)
        except ImageError as error:
            raise ImageError(f"{error} ({self._setting}.root)") from None

    @property
    def readers(self) -> int:
        """Number of threads that may read at once."""
        remote = self._fetcher.connections if self._schemes else 0
        return max(self._store.readers if self._store else 1, remote)


def _list_spellings(path: str) -> Iterator[str]:
    """Yield a path as it is, then as a table of another system may mean it."""
    yield path
    stripped = strip_blanks(path)
    for spelling in (stripped, stripped.replace("\\", "/")):
        yield spelling
        yield unicodedata.normalize("NFC", spelling)
        yield unicodedata.normalize("NFD", spelling)
