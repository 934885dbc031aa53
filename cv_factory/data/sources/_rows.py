"""Turns the rows of a table (CSV, Parquet, JSON, a query) into listed images."""

import logging
import math
import re
import reprlib
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any

from cv_factory.config.data import ColumnsConfig
from cv_factory.config.secrets import mask_secrets
from cv_factory.data.sources._listing import ListedImage, official_split
from cv_factory.errors import SourceError

_log = logging.getLogger(__name__)

#: White space, and what is as invisible: zero-width spaces and byte-order marks.
_BLANKS_AROUND = re.compile(r"^[\s\u200b\u2060\ufeff]+|[\s\u200b\u2060\ufeff]+$")


def strip_blanks(text: str) -> str:
    """Remove blanks of every kind from both ends."""
    return _BLANKS_AROUND.sub("", text)


def parse_text(value: object) -> str:
    """Return a value as text: bytes as UTF-8, whole numbers without a point, absent ones empty.

    Raises:
        ValueError: It is no text: a list, a fraction, bytes or characters that are none.
    """
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode()
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))  # a column of whole numbers with gaps
    if not isinstance(value, str | int | uuid.UUID | date):
        raise ValueError("no text")
    text = str(value)
    text.encode()
    return text


class RowReader:
    """Turns a table's rows into listed images, by the configured column names."""

    def __init__(
        self, columns: ColumnsConfig, available: Sequence[str], setting: str, table: str
    ) -> None:
        """Find the columns; blanks around their names do not matter.

        Args:
            columns: The configured names.
            available: The table's columns.
            setting: Dotted name of the section ``columns``, for errors.
            table: Name of the table, for errors.

        Raises:
            SourceError: A column that is needed is missing, or there twice.
        """
        self._setting = setting
        self._table = table
        self._names: dict[str, str] = {}
        by_name = {strip_blanks(name): name for name in available} | {n: n for n in available}
        for role in ("image", "label", "id", "split", "group"):
            name = getattr(columns, role)
            if name in by_name:
                self._names[role] = by_name[name]
                if available.count(by_name[name]) > 1:
                    raise SourceError(f"{table} has the column {name!r} twice.")
            elif name is not None and not _is_optional(role, name):
                listing = ", ".join(map(repr, available)) or "none"
                without = ", or null for images without labels" if role == "label" else ""
                raise SourceError(
                    f"{table} has no column {name!r} (set by {setting}.{role}); its columns are "
                    f"{listing}. Name the right one{without}: --set {setting}.{role}=COLUMN"
                )

    @property
    def names(self) -> Mapping[str, str]:
        """Name of the column of each role: image, and where there are, label, id, split, group."""
        return self._names

    def list_images(
        self, rows: Iterable[Mapping[str, Any]], resolve: Callable[[str], str] = str
    ) -> Iterator[ListedImage]:
        """Turn rows, by column name, into listed images; null and empty count as absent.

        Labels, splits and groups are stripped of blanks and brought to Unicode's normal form C.

        Args:
            rows: The rows; those without any value are left out.
            resolve: Returns the reference by which an image is read.

        Raises:
            SourceError: A value is no text, or a split is none; the message names row and column.
        """
        n_empty = 0
        for number, row in enumerate(rows, 1):
            values = {role: self._parse(row, role, number) for role in self._names}
            if not any(values.values()):
                n_empty += 1
                continue
            image = resolve(values["image"]) if values["image"] else ""
            yield ListedImage(
                id=values.get("id") or mask_secrets(image),
                name=image.encode(),
                label=_normalize(values.get("label", "")) or None,
                split=self._parse_split(values.get("split", ""), number),
                group=_normalize(values.get("group", "")),
                problem="" if image else "the row names no image",
            )
        if n_empty:
            columns = ", ".join(map(repr, self._names.values()))
            _log.info(f"{self._table}: {n_empty:,} rows without a value in {columns} are left out")

    def _parse(self, row: Mapping[str, Any], role: str, number: int) -> str:
        name = self._names[role]
        value = row.get(name)
        try:
            return parse_text(value)
        except ValueError:
            raise SourceError(
                f"{self._table}, row {number}: the column {name!r} holds {reprlib.repr(value)} "
                f"({type(value).__name__}), neither text nor a whole number. Convert the column to "
                f"text, or name another one: --set {self._setting}.{role}=COLUMN"
            ) from None

    def _parse_split(self, value: str, number: int) -> str:
        setting = f"{self._setting}.split"
        try:
            return official_split(_normalize(value), setting)
        except SourceError as error:
            raise SourceError(
                f"{self._table}, row {number}: {error} To ignore the column "
                f"{self._names['split']!r}: --set {setting}=null"
            ) from None


def _is_optional(role: str, name: str) -> bool:
    """Whether a column need not be there: 'split' and 'group', unless they are called otherwise."""
    return role in ("split", "group") and name == ColumnsConfig.model_fields[role].default


@lru_cache(maxsize=4096)
def _normalize(text: str) -> str:
    return unicodedata.normalize("NFC", strip_blanks(text))
