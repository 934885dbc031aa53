"""The manifest of an ImageDataset: its columns, written batch by batch and read without copies.

Text columns stay in Arrow's memory (a mapped file where there is one), never as a million Python
strings; digests over them are taken a chunk at a time.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cv_factory.errors import ArtifactError

#: Text that lives in Arrow's memory, with None and NaN as missing values.
STRING = pd.StringDtype("pyarrow", na_value=np.nan)

#: Columns that every manifest has, and their types; one row per image, in the images' order.
#: Further columns are kept as they are.
MANIFEST_COLUMNS: dict[str, Any] = {
    "id": STRING,
    "label": "int64",
    "source": STRING,
    "pixels_sha256": STRING,
    "width": "int32",
    "height": "int32",
    "mode": STRING,
    "brightness": "float32",
    "contrast": "float32",
    "sharpness": "float32",
    "official_split": STRING,
}
#: Columns that ingestion adds; a manifest without them has no groups and no perceptual hashes.
OPTIONAL_COLUMNS: dict[str, Any] = {"group": STRING, "perceptual_hash": "uint64"}

CHUNK = 65_536
_DISTINCT = frozenset({"id", "source", "pixels_sha256"})


def _arrow_type(dtype: Any) -> pa.DataType:
    return pa.large_string() if dtype == STRING else pa.from_numpy_dtype(np.dtype(dtype))


MANIFEST_SCHEMA = pa.schema(
    {name: _arrow_type(t) for name, t in (MANIFEST_COLUMNS | OPTIONAL_COLUMNS).items()}
)


class ManifestWriter(AbstractContextManager["ManifestWriter"]):
    """Writes a manifest to an Arrow file, a batch at a time; memory does not grow with its rows."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, MANIFEST_SCHEMA)
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def __exit__(self, *exc_info: object) -> None:
        """Close, whatever happened in the block."""
        self.close()

    def append(self, columns: dict[str, Any]) -> None:
        """Append rows given by column, with all columns of ``MANIFEST_SCHEMA``."""
        arrays = [pa.array(columns[field.name], field.type) for field in MANIFEST_SCHEMA]
        self._waiting.append(pa.record_batch(arrays, schema=MANIFEST_SCHEMA))
        self._rows += self._waiting[-1].num_rows
        if self._rows >= CHUNK:
            self._flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        if not self._file.closed:
            self._flush()
            self._writer.close()
            self._file.close()

    def _flush(self) -> None:
        # Few large chunks: random access into many small ones is slow.
        table = pa.Table.from_batches(self._waiting, schema=MANIFEST_SCHEMA).combine_chunks()
        for batch in table.to_batches():
            self._writer.write_batch(batch)
        self._waiting, self._rows = [], 0


def map_manifest(path: Path) -> pd.DataFrame:
    """Map what ``ManifestWriter`` wrote: text columns stay in the file's pages."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    return _to_pandas(table)


def read_manifest(path: Path, n_images: int) -> pd.DataFrame:
    """Read a Parquet manifest.

    Raises:
        ArtifactError: It is no Parquet table, lacks a column, or has another number of rows.
    """
    try:
        with pq.ParquetFile(path) as file:
            manifest = _to_pandas(file.read())
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path} is not a readable Parquet table ({error}).") from None
    missing = [column for column in MANIFEST_COLUMNS if column not in manifest.columns]
    if missing or len(manifest) != n_images:
        raise ArtifactError(
            f"{path} has {len(manifest)} rows for {n_images} images and lacks the columns "
            f"{missing}."
        )
    return manifest


def write_manifest(manifest: pd.DataFrame, path: Path) -> None:
    """Write a manifest as Parquet, a chunk at a time."""
    schema = pa.Schema.from_pandas(manifest.iloc[:0], preserve_index=False)
    # Reading takes a third of the time where what does not repeat is not searched for repetitions.
    repeating = [name for name in schema.names if name not in _DISTINCT]
    compression = {name: "none" if name == "pixels_sha256" else "snappy" for name in schema.names}
    with pq.ParquetWriter(
        path, schema, use_dictionary=repeating, compression=compression
    ) as writer:
        for start in range(0, len(manifest), CHUNK):
            part = manifest.iloc[start : start + CHUNK]
            writer.write_table(pa.Table.from_pandas(part, schema=schema, preserve_index=False))


def get_groups(manifest: pd.DataFrame) -> "pd.Series[str]":
    """Return the group of each image, empty where it stands alone."""
    if "group" in manifest.columns:
        return manifest["group"].fillna("")
    return pd.Series("", index=manifest.index, dtype=STRING)


def row_digests(manifest: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """Return a SHA-256 of id, label and pixels of each row, sorted, as uint64 ``(N, 4)``."""
    digests = np.empty((len(manifest), 4), dtype=">u8")
    for start, part in _chunks(manifest):
        rows = zip(
            part["id"].to_list(), part["label"].to_list(), part["pixels_sha256"].to_list(),
            strict=True,
        )  # fmt: skip
        joined = b"".join(
            hashlib.sha256(f"{id_}\0{label}\0{pixels}".encode()).digest()
            for id_, label, pixels in rows
        )
        digests[start : start + len(part)] = np.frombuffer(joined, ">u8").reshape(-1, 4)
    native = digests.astype(np.uint64)
    order: npt.NDArray[np.int64] = np.lexsort(native.T[::-1])
    return native[order]


def ordered_digest(manifest: pd.DataFrame) -> str:
    """Return the SHA-256 of all columns in their order."""
    digest = hashlib.sha256(repr(list(manifest.columns)).encode())
    for _, part in _chunks(manifest):
        for name in part.columns:
            column = part[name]
            if isinstance(column.dtype, np.dtype) and column.dtype != object:
                digest.update(column.to_numpy().tobytes())
            else:
                text = [repr(value).encode() for value in column.to_list()]
                digest.update(np.array([len(t) for t in text]).tobytes() + b"".join(text))
    return digest.hexdigest()


def _chunks(manifest: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    for start in range(0, len(manifest), CHUNK):
        yield start, manifest.iloc[start : start + CHUNK]


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    strings = {pa.string(): STRING, pa.large_string(): STRING}
    frame: pd.DataFrame = table.to_pandas(types_mapper=strings.get, split_blocks=True)
    return frame
