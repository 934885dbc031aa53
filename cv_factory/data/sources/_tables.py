"""Reads tables, CSV and Parquet, row by row."""

import codecs
import csv
import io
import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any

from cv_factory.errors import SourceError

_DELIMITERS = (",", ";", "\t", "|")
_DELIMITER_LINE = re.compile(r"(\"?)sep=(.)\1\s*$", re.IGNORECASE)
_MAX_FIELD_CHARACTERS = 2**24
_UTF_16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")


@dataclass(frozen=True)
class Table:
    """An open table.

    Attributes:
        columns: Names of the columns, as the table has them.
        rows: Yields the rows by column name, of the columns that it is given; called once.
    """

    columns: list[str]
    rows: Callable[[Collection[str]], Iterator[dict[str, Any]]]


def open_table(file: IO[bytes], name: str, encoding: str | None, encoding_hint: str) -> Table:
    """Open a CSV or Parquet table.

    Args:
        file: The open table.
        name: Its name; ``.parquet`` and ``.pq`` are Parquet, everything else is CSV.
        encoding: Of a CSV; None for UTF-8.
        encoding_hint: How to name the encoding of a CSV, for errors; ``ENCODING`` stands for it.

    Raises:
        SourceError: It is no such table; also raised while rows are read.
    """
    if name.lower().endswith((".parquet", ".pq")):
        return _open_parquet(file, name)
    reader = _CsvReader(file, name, encoding, encoding_hint)
    return Table(reader.header, reader.rows)


def _open_parquet(file: IO[bytes], name: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{name} is not a readable Parquet table ({error}).") from None

    def rows(columns: Collection[str]) -> Iterator[dict[str, Any]]:
        try:
            for batch in table.iter_batches(4096, columns=list(columns)):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{name} is damaged ({error}).") from None

    return Table(list(table.schema_arrow.names), rows)


class _CsvReader:
    """Reads a CSV with a header, as spreadsheets of all sorts write it."""

    def __init__(self, file: IO[bytes], name: str, encoding: str | None, hint: str) -> None:
        """Read the header; the line ``sep=;`` before it names the delimiter."""
        self._name = name
        try:
            self._encoding = codecs.lookup(encoding or "utf-8").name
            "".encode(self._encoding)  # there are codecs that are none of text, such as hex
        except LookupError:
            raise SourceError(f"{name} comes in an unknown encoding, {encoding!r}.") from None
        self._hint = hint
        self._line = 0
        csv.field_size_limit(_MAX_FIELD_CHARACTERS)
        lines = self._read_lines(file)
        first = next((line for line in lines if line.strip()), "")
        if not first:
            raise SourceError(
                f"{name} is empty; expected a table with a header, such as image_path,label."
            )
        instruction = _DELIMITER_LINE.match(first)
        if not instruction:
            lines = chain([first], lines)
        delimiter = instruction[2] if instruction else max(_DELIMITERS, key=first.count)
        self._reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        self.header = next(self._read_rows(), [])
        self._check_decoded(self.header)
        if "\0" in "".join(self.header):
            raise self._encoding_error(_UTF_16_MARKS[0])

    def rows(self, columns: Collection[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows below the header; blank lines are none."""
        positions = [(name, self.header.index(name)) for name in columns]
        n_columns = len(self.header)
        for fields in self._read_rows():
            if not fields:
                continue
            if not any(map(str.strip, fields)):
                fields = [""] * n_columns
            if len(fields) != n_columns:
                raise SourceError(
                    f"{self._name}, line {self._line}: expected {n_columns} columns, got "
                    f"{len(fields)}: {reprlib.repr(fields)}"
                )
            row = {name: fields[position] for name, position in positions}
            self._check_decoded(row.values())
            yield row

    def _read_lines(self, file: IO[bytes]) -> Iterator[str]:
        encoding = "utf-8-sig" if self._encoding == "utf-8" else self._encoding
        # What cannot be decoded is an error in the columns that are read, and there alone.
        text = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
        try:
            for line in text:
                self._line += 1
                yield line
        except UnicodeError:
            self._line += 1
            raise self._encoding_error("") from None

    def _read_rows(self) -> Iterator[list[str]]:
        try:
            yield from self._reader
        except csv.Error as error:
            raise SourceError(
                f"{self._name}, line {self._line}: no readable CSV ({error})."
            ) from None

    def _check_decoded(self, fields: Iterable[str]) -> None:
        text = "".join(fields)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self._encoding_error(text) from None

    def _encoding_error(self, text: str) -> SourceError:
        likely = "utf-16" if text.startswith(_UTF_16_MARKS) else "cp1252"
        return SourceError(
            f"{self._name}, line {self._line}, is not {self._encoding.upper()}; save the table as "
            f"UTF-8, or {self._hint.replace('ENCODING', likely)}"
        )
