"""The list of a source's images, kept as Arrow columns so that a million of them cost little."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cv_factory.errors import SourceError

OFFICIAL_SPLITS = ("", "train", "validation", "test")

_CHUNK = 65_536
_ROWS_AT_ONCE = 256
_SPLIT_NAMES = {
    "": "",
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
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


def official_split(value: str, setting: str) -> str:
    """Return ``train``, ``validation``, ``test`` or empty for how people write them.

    Raises:
        SourceError: It is none of these.
    """
    part = _SPLIT_NAMES.get(value.strip().lower())
    if part is None:
        raise SourceError(
            f"{setting} holds {value!r}; a split is train, validation or test (or val, dev, …)."
        )
    return part


class Listing:
    """All images of a source, sorted by id: columns instead of objects."""

    def __init__(self, images: Iterator[ListedImage], class_names: tuple[str, ...] = ()) -> None:
        """Collect the images.

        Args:
            images: In any order.
            class_names: Known classes; those that the images name are added.
        """
        codes = {name: number for number, name in enumerate(class_names)}
        chunks: list[pa.RecordBatch] = []
        rows: list[ListedImage] = []
        for image in images:
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
        """Return the SHA-256 of everything that is listed, and of the names of all classes."""
        digest = hashlib.sha256("".join(f"{name}\0" for name in self.class_names).encode())
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
