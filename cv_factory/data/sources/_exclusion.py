"""Leaves out of any source the images whose ids a table lists (``data.exclude``)."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cv_factory.config.data import DataConfig
from cv_factory.data.sources import ImageRecord, ImageSource
from cv_factory.data.sources._rows import parse_text
from cv_factory.data.sources._tables import open_table
from cv_factory.data.storage.environment import expand
from cv_factory.data.storage.stores import FsspecStore, parse_scheme
from cv_factory.errors import SourceError
from cv_factory.reporting.numbers import format_count

_COLUMN, _PART_COLUMN, _TEST = "id", "part", "test"
_ENCODING_HINT = "save it as UTF-8"
_MAX_NAMED = 5


@dataclass(frozen=True)
class ExclusionList:
    """Ids of images that are left out.

    Attributes:
        name: Of the table, as the user named it.
        ids: The ids.
        test_ids: Those of images that the table's column ``part`` has in the test part.
        sha256: Of the table.
    """

    name: str
    ids: frozenset[str]
    test_ids: frozenset[str]
    sha256: str


def read_exclusion_list(config: DataConfig) -> ExclusionList:
    """Read the table that ``data.exclude`` names: CSV or Parquet with a column ``id``.

    A column ``part``, which ``run.py labels suspicious`` writes, says which were test images.

    Raises:
        SourceError: It cannot be read, or has no such column.
    """
    name = config.exclude or ""
    content = _read(name, config)
    table = open_table(io.BytesIO(content), name, None, _ENCODING_HINT)
    if _COLUMN not in table.columns:
        listing = ", ".join(map(repr, table.columns)) or "none"
        raise SourceError(
            f"{name} (data.exclude) has no column {_COLUMN!r}; its columns are {listing}. Give one "
            "row an image with its id, as run.py labels suspicious writes them."
        )
    columns = {_COLUMN, _PART_COLUMN} & set(table.columns)
    ids, test_ids = set(), set()
    try:
        for row in table.rows(columns):
            ids.add(id_ := parse_text(row[_COLUMN]))
            if row.get(_PART_COLUMN) == _TEST:
                test_ids.add(id_)
    except ValueError as error:
        raise SourceError(f"{name} (data.exclude): an id is {error}.") from None
    sha256 = hashlib.sha256(content).hexdigest()
    return ExclusionList(name, frozenset(ids) - {""}, frozenset(test_ids), sha256)


class ExcludingSource(ImageSource):
    """A source without the images of an exclusion list."""

    def __init__(self, source: ImageSource, exclusions: ExclusionList) -> None:
        """Look for the listed images.

        Raises:
            SourceError: None of them is here, or a class would be left without images.
        """
        self._source = source
        self._exclusions = exclusions
        positions: list[int] = []
        present: set[str] = set()
        test: set[str] = set()
        counts: Counter[str] = Counter()
        for position, record in enumerate(source.records(np.arange(len(source)))):
            is_excluded = record.id in exclusions.ids
            if record.label:
                counts[record.label] += not is_excluded
            if not is_excluded:
                positions.append(position)
                continue
            present.add(record.id)
            if record.official_split == _TEST or record.id in exclusions.test_ids:
                test.add(record.id)
        self._positions = np.array(positions, np.int64)
        if exclusions.ids and not present:
            raise SourceError(
                f"None of the {format_count(len(exclusions.ids), 'id')} in {exclusions.name} "
                f"(data.exclude), such as {min(exclusions.ids)}, is of an image in "
                f"{source.description}: name the list that was made for it."
            )
        if emptied := sorted(name for name, n in counts.items() if not n):
            raise SourceError(
                f"{exclusions.name} (data.exclude) leaves no image of {', '.join(emptied)} in "
                f"{source.description}: take images of it off the list, or remove the class from "
                "the source."
            )
        if not positions:
            raise SourceError(
                f"{exclusions.name} (data.exclude) leaves no image in {source.description}."
            )
        self._notices = tuple(self._describe(present, len(test)))

    def _describe(self, present: set[str], n_test: int) -> Iterator[str]:
        exclusions = self._exclusions
        if n := len(self._source) - len(self):
            yield (
                f"{format_count(n, 'image')} left out, as {exclusions.name} says "
                f"(data.exclude, SHA-256 {exclusions.sha256[:12]})."
            )
        if n_test:
            yield (
                f"{format_count(n_test, 'test image')} left out (data.exclude): accuracies with "
                "and without them cannot be compared, and leaving out images that a model gets "
                "wrong flatters it."
            )
        if unknown := sorted(exclusions.ids - present):
            more = len(unknown) - _MAX_NAMED
            names = ", ".join(unknown[:_MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
            yield (
                f"{format_count(len(unknown), 'id')} in {exclusions.name} (data.exclude) of no "
                f"image in {self._source.description}: {names}."
            )

    @property
    def description(self) -> str:
        """The source's own: where the images are."""
        return self._source.description

    @property
    def class_names(self) -> tuple[str, ...]:
        """The source's own: no class is left without images."""
        return self._source.class_names

    @property
    def notices(self) -> tuple[str, ...]:
        """The source's own, how many images were left out, and ids of no image."""
        return (*self._source.notices, *self._notices)

    @property
    def has_versions(self) -> bool:
        """Whether the source tells when an image changes."""
        return self._source.has_versions

    @property
    def readers(self) -> int:
        """Number of threads that may read at once."""
        return self._source.readers

    def __len__(self) -> int:
        """Return the number of images that are left."""
        return len(self._positions)

    def fingerprint(self) -> str:
        """Digest of the source and of the list."""
        return hashlib.sha256(
            f"{self._source.fingerprint()}\n{self._exclusions.sha256}".encode()
        ).hexdigest()

    def records(self, indices: npt.NDArray[np.int64]) -> Iterator[ImageRecord]:
        """Yield the records that are left, by their positions among themselves."""
        return self._source.records(self._positions[indices])

    def labels_and_parts(self, indices: npt.NDArray[np.int64]) -> Iterator[tuple[str | None, str]]:
        """Yield label and official part of the records; reads no content."""
        return self._source.labels_and_parts(self._positions[indices])

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def _read(name: str, config: DataConfig) -> bytes:
    try:
        if parse_scheme(name) in ("", "file"):
            return Path(name.removeprefix("file://")).expanduser().read_bytes()
        folder, _, base = expand(name, "data.exclude").rpartition("/")
        with FsspecStore.connect(folder, config.storage_options).open(base) as file:
            return file.read()
    except OSError as error:
        raise SourceError(
            f"{name} (data.exclude) cannot be read: {error.strerror or error}."
        ) from None
