"""The list of a source's images, kept as Arrow columns so that a million of them cost little."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cv_factory.data.storage.stores import is_system_path, printable
from cv_factory.errors import SourceError
from cv_factory.reporting.numbers import format_count

OFFICIAL_SPLITS = ("", "train", "validation", "test")

_CHUNK = 65_536
_ROWS_AT_ONCE = 256
#: Words for the parts of a split, as in Hugging Face's datasets, and ``holdout``.
_PART_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout"), "test"),
}
#: What a name adds to such a word without another meaning: ``train_images``, ``testset``.
_PART_SUFFIX = re.compile(r"((data)?sets?|data|images?|imgs?|splits?|\d{4})$")
_MAX_EXAMPLES = 3
_SCHEMA = pa.schema(
    {
        "id": pa.large_string(),
        "name": pa.large_binary(),
        "label": pa.int32(),
        "split": pa.int8(),
        "group": pa.large_string(),
        "version": pa.large_string(),
        "problem": pa.large_string(),
    }
)


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image of a listing.

    Attributes:
        id: Unique in the source.
        name: By which the source reads it: a path, a URL, a key.
        label: Name of the class; None where there is none.
        split: ``train``, ``validation``, ``test`` or empty.
        group: Images of one group stay together; empty where there is none.
        version: Changes when the image does, as far as the source knows.
        problem: Why it cannot be read, where that is known already.
    """

    id: str
    name: bytes
    label: str | None
    split: str = ""
    group: str = ""
    version: str = ""
    problem: str = ""


def parse_part(name: str) -> tuple[str, str] | None:
    """Read a part of a split off a name: ``Testing`` is test, ``seg_train`` is train of ``seg``.

    Returns:
        ``train``, ``validation`` or ``test``, and the words of the name that do not mean it; None
        where no word, or more than one, means a part.
    """
    words = re.split(r"[-_. ]+", re.sub(r"hold[-_ ]out", "holdout", name.strip().lower()))
    stems = [stem for word in words if (stem := _PART_SUFFIX.sub("", word))]
    parts = [_PART_WORDS[stem] for stem in stems if stem in _PART_WORDS]
    if len(parts) != 1:
        return None
    return parts[0], " ".join(stem for stem in stems if stem not in _PART_WORDS)


def official_split(value: str, setting: str) -> str:
    """Return ``train``, ``validation``, ``test`` or empty for how people write them.

    Raises:
        SourceError: It is none of these.
    """
    if not value.strip():
        return ""
    part, rest = parse_part(value) or ("", "")
    if not part or rest:
        raise SourceError(
            f"{setting} holds {value!r}; a split is train, validation or test (or val, dev, …)."
        )
    return part


class Examples:
    """Count of names, and the first of them in alphabetical order."""

    def __init__(self) -> None:
        """Start empty."""
        self.count = 0
        self._first: list[str] = []

    def add(self, name: str) -> None:
        """Count a name."""
        self.count += 1
        self._first = sorted([*self._first, name])[:_MAX_EXAMPLES]

    def __str__(self) -> str:
        """Return the first names, and how many follow."""
        more = self.count - len(self._first)
        return ", ".join(self._first) + (f" and {more:,} more" if more else "")


class Listing:
    """All images of a source, sorted by id: columns instead of objects.

    Files that an operating system made, such as ``Thumbs.db``, are no images and are left out.

    Attributes:
        class_names: Names of the classes, sorted.
        notices: What was left out and why, one sentence each.
    """

    def __init__(self, images: Iterator[ListedImage], class_names: tuple[str, ...] = ()) -> None:
        """Collect the images.

        Args:
            images: In any order.
            class_names: Known classes; those that the images name are added.
        """
        codes = {name: number for number, name in enumerate(class_names)}
        self.notices: list[str] = []
        system_files = Examples()
        chunks: list[pa.RecordBatch] = []
        rows: list[ListedImage] = []
        for image in images:
            if is_system_path(printable(image.name)):
                system_files.add(image.id)
                continue
            rows.append(image)
            if len(rows) == _CHUNK:
                chunks.append(_record_batch(rows, codes))
                rows = []
        if rows:
            chunks.append(_record_batch(rows, codes))
        table = pa.Table.from_batches(chunks, schema=_SCHEMA)
        self.class_names = sorted_names(codes)
        self._code_names = [*codes, None]
        order = pc.sort_indices(table, sort_keys=[("id", "ascending")])
        self._table = table.take(order).combine_chunks()
        if system_files.count:
            self.notices.append(
                f"{format_count(system_files.count, 'file')} of the operating system left out: "
                f"{system_files}."
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self._table.num_rows)

    def rows(self, indices: npt.NDArray[np.int64]) -> Iterator[ListedImage]:
        """Yield the images at these positions, a few hundred in memory at a time."""
        for start in range(0, len(indices), _ROWS_AT_ONCE):
            part = self._table.take(pa.array(indices[start : start + _ROWS_AT_ONCE]))
            columns = [part.column(name).to_pylist() for name in _SCHEMA.names]
            for id_, name, label, split, group, version, problem in zip(*columns, strict=True):
                yield ListedImage(
                    id_,
                    name,
                    self._code_names[label],
                    OFFICIAL_SPLITS[split],
                    group,
                    version,
                    problem,
                )

    def drop_classes_below(self, n_images: int) -> dict[str, int]:
        """Drop classes with fewer images, and those images; return the classes and their counts."""
        labels = self._table.column("label").to_numpy()
        counts = np.bincount(labels[labels >= 0], minlength=len(self._code_names))
        n_by_class = dict(zip(self._code_names, counts.tolist(), strict=False))
        dropped = {name: n for name in self.class_names if (n := n_by_class[name]) < n_images}
        self.class_names = tuple(name for name in self.class_names if name not in dropped)
        is_kept = (labels < 0) | (counts[labels] >= n_images)
        self._table = self._table.filter(pa.array(is_kept)).combine_chunks()
        return dropped

    def repeated_id(self) -> str | None:
        """Return an id that stands there more than once, if there is one."""
        if len(self) < 2:
            return None
        ids = self._table.column("id").combine_chunks()
        same = pc.equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
        return str(ids[int(same.argmax())]) if same.any() else None

    @property
    def has_versions(self) -> bool:
        """Whether each image that can be read has a version."""
        columns = (self._table.column(name) for name in ("version", "problem"))
        is_version, is_problem = (pc.greater(pc.binary_length(column), 0) for column in columns)
        return bool(pc.all(pc.or_(is_version, is_problem), min_count=0).as_py())

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that is listed, of the classes' names, and of the notices."""
        named = [*self.class_names, *self.notices]
        digest = hashlib.sha256("".join(f"{name}\0" for name in named).encode())
        for batch in self._table.to_batches(max_chunksize=_CHUNK):
            labels = [self._code_names[code] or "" for code in batch.column("label").to_pylist()]
            columns = [
                pc.cast(batch.column(name), pa.large_binary())
                for name in ("id", "name", "group", "version", "problem")
            ]
            columns.append(pa.array([name.encode() for name in labels], pa.large_binary()))
            columns.append(pc.cast(pc.cast(batch.column("split"), pa.string()), pa.large_binary()))
            for column in columns:
                digest.update(pc.binary_length(column).to_numpy().tobytes())
                digest.update(b"".join(column.to_pylist()))
        return digest.hexdigest()


def sorted_names(names: dict[str, int]) -> tuple[str, ...]:
    """Sort class names; as numbers where all of them are numbers."""
    if names and all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _record_batch(rows: list[ListedImage], codes: dict[str, int]) -> pa.RecordBatch:
    labels = [-1 if r.label is None else codes.setdefault(r.label, len(codes)) for r in rows]
    return pa.record_batch(
        [
            pa.array([r.id for r in rows], pa.large_string()),
            pa.array([r.name for r in rows], pa.large_binary()),
            pa.array(labels, pa.int32()),
            pa.array([OFFICIAL_SPLITS.index(r.split) for r in rows], pa.int8()),
            pa.array([r.group for r in rows], pa.large_string()),
            pa.array([r.version for r in rows], pa.large_string()),
            pa.array([r.problem for r in rows], pa.large_string()),
        ],
        schema=_SCHEMA,
    )
