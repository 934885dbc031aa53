"""Reads the images that a table's rows refer to: paths below a root, or URLs of allowed schemes."""

from collections.abc import Collection, Mapping
from typing import Any

from cv_factory.config.data import ColumnsConfig
from cv_factory.data.sources._listing import ListedImage, official_split
from cv_factory.data.storage.fetch import Fetcher
from cv_factory.data.storage.stores import (
    FsspecStore,
    ImageStore,
    check_relative,
    parse_scheme,
    printable,
)
from cv_factory.errors import ImageError, SourceError


class ReferencedImages:
    """Turns a reference (a path or a URL) into bytes, and refuses what is not allowed."""

    def __init__(
        self,
        store: ImageStore | None,
        *,
        allowed_schemes: Collection[str],
        fetcher: Fetcher,
        max_bytes: int,
        storage_options: Mapping[str, str | int | bool],
    ) -> None:
        """Set the limits.

        Args:
            store: What relative paths lie in; None where there are to be none.
            allowed_schemes: URL schemes that may be read.
            fetcher: For ``http`` and ``https``; it refuses private addresses.
            max_bytes: Larger images are refused.
            storage_options: For the other schemes' file systems.
        """
        self._store = store
        self._schemes = frozenset(allowed_schemes)
        self._fetcher = fetcher
        self._max_bytes = max_bytes
        self._options = storage_options

    def read(self, name: bytes) -> bytes:
        """Return the image's bytes.

        Raises:
            ImageError: The reference is refused, or the image cannot be had.
        """
        reference = printable(name)
        scheme = parse_scheme(reference)
        if not scheme:
            if self._store is None:
                raise ImageError("a relative path, but there is no root (set 'root')")
            return self._store.read(check_relative(reference).encode(), self._max_bytes)
        if scheme not in self._schemes:
            allowed = ", ".join(sorted(self._schemes)) or "none"
            raise ImageError(f"the scheme '{scheme}:' is not allowed (allowed_schemes: {allowed})")
        if scheme in ("http", "https"):
            return self._fetcher.get(reference, self._max_bytes).content
        folder, _, base = reference.rpartition("/")
        return FsspecStore.connect(folder, self._options).read(base.encode(), self._max_bytes)

    def version(self, name: bytes) -> str:
        """Return what changes when the image does; empty where only reading it tells."""
        reference = printable(name)
        scheme = parse_scheme(reference)
        if scheme:
            return "" if scheme in self._schemes else "refused"
        if self._store is None:
            return "no root"
        try:
            return self._store.version(check_relative(reference).encode())
        except ImageError as error:
            return str(error)

    def location(self, name: bytes) -> str:
        """Return where an image lies, for people."""
        reference = printable(name)
        if parse_scheme(reference) or self._store is None:
            return reference
        return self._store.location(name)

    @property
    def readers(self) -> int:
        """Number of threads that may read at once."""
        remote = self._fetcher.connections if self._schemes else 0
        return max(self._store.readers if self._store else 1, remote)


class RowReader:
    """Turns a table's rows into listed images, by the configured column names."""

    def __init__(self, columns: ColumnsConfig, available: Collection[str], setting: str) -> None:
        """Find the columns.

        Args:
            columns: The configured names.
            available: The table's columns.
            setting: Dotted name of the section, for errors.

        Raises:
            SourceError: A column that is needed is missing.
        """
        self._setting = setting
        self._names = {"image": columns.image}
        for role in ("label", "id", "split", "group"):
            name = getattr(columns, role)
            if name is not None:
                self._names[role] = name
            elif role in ("split", "group") and role in available:
                self._names[role] = role
        for role, name in self._names.items():
            if name not in available:
                listing = ", ".join(map(str, available)) or "none"
                raise SourceError(
                    f"There is no column {name!r} (set by {setting}.{role}); columns are: "
                    f"{listing}."
                )

    @property
    def names(self) -> dict[str, str]:
        """Name of the column of each role: image, and where there are, label, id, split, group."""
        return self._names

    def listed(self, row: Mapping[str, Any]) -> ListedImage:
        """Turn one row, by column name, into a listed image; null and empty count as absent.

        Raises:
            SourceError: The split is none.
        """
        values = {role: _text(row.get(name)) for role, name in self._names.items()}
        image = values["image"]
        return ListedImage(
            id=values.get("id") or image,
            name=image.encode("utf-8", "surrogateescape"),
            label=values.get("label") or None,
            split=official_split(values.get("split", ""), f"{self._setting}.split"),
            group=values.get("group", ""),
            problem="" if image else "the row names no image",
        )


def _text(value: object) -> str:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of whole numbers with gaps
    return str(value)
