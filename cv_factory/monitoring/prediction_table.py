"""Predictions as Arrow tables: the columns of compacted logs, and the parser of log lines.

A table holds lines of one process, hence of one version and list of classes, which its metadata
names. Lines that are no predictions have an ``event``: ``refused`` (an image that could not be
used), ``pruned`` or ``dropped`` (lines that were lost before they were stored).
"""

import io
import json
from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

#: Key of the schema's metadata: JSON list of the classes of ``probabilities``.
CLASS_NAMES = b"class_names"
_TEXT, _NUMBER, _NUMBERS = pa.string(), pa.float32(), pa.list_(pa.float32())
SCHEMA = pa.schema(
    {
        "id": _TEXT,
        "time": pa.timestamp("ms", "UTC"),
        "model": _TEXT,
        "version": _TEXT,
        "arm": _TEXT,
        "request_id": _TEXT,
        "key": _TEXT,
        "label": _TEXT,
        "probabilities": _NUMBERS,
        "unfamiliarity": _NUMBER,
        "features": _NUMBERS,
        "width": _NUMBER,
        "height": _NUMBER,
        "brightness": _NUMBER,
        "contrast": _NUMBER,
        "sharpness": _NUMBER,
        "cached": pa.bool_(),
        "image_hmac": _TEXT,
        "sampling_probability": pa.float64(),
        "event": _TEXT,
        "n": pa.int64(),
    }
)
#: A line must fit into a block; larger ones save no time.
_BLOCK_BYTES = 2**24
#: Parsing takes several times as much memory.
_READ_BYTES = 2**23


def parse_log(content: bytes, class_names: Sequence[str]) -> tuple[pa.Table, list[bytes]]:
    """Parse the lines of a prediction log file, of schema version 1 or 2.

    A last line without its end is left out: it is still written.

    Args:
        content: The file.
        class_names: Order of the classes where the file has no others than these.

    Returns:
        A table with ``SCHEMA`` and ``CLASS_NAMES``, and the lines that are damaged.
    """
    lines = content[: content.rfind(b"\n") + 1]
    try:
        return _to_schema(_parse_json(lines), class_names), []
    except pa.ArrowInvalid:
        split = lines.splitlines(keepends=True)
        is_intact = list(map(_is_intact, split))
        intact = b"".join(compress(split, is_intact))
        damaged = [line for line, ok in zip(split, is_intact, strict=True) if not ok]
        return _to_schema(_parse_json(intact), class_names), damaged


def read_blocks(file: Path) -> Iterator[bytes]:
    """Yield the content of a log file in pieces of whole lines, to parse it in little memory."""
    with file.open("rb") as opened:
        while block := opened.read(_READ_BYTES):
            yield block + opened.readline()


def encode_parquet(table: pa.Table) -> bytes:
    """Encode a table; equal tables give equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def parse_class_names(table: pa.Table) -> tuple[str, ...]:
    """Return the classes of a table's probabilities."""
    return tuple(json.loads(table.schema.metadata[CLASS_NAMES]))


def get_matrix(table: pa.Table, name: str) -> npt.NDArray[np.float32]:
    """Return a column of lists of equal lengths, float32 ``(N, length)``, zero where null."""
    column = table.column(name).combine_chunks()
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.drop_null().flatten().to_numpy()
    n = int(valid.sum())
    rows: npt.NDArray[np.float32] = values.reshape(n, len(values) // max(1, n))
    if n == len(valid):
        return rows
    matrix = np.zeros((len(valid), rows.shape[1]), np.float32)
    matrix[valid] = rows
    return matrix


def build_matrix_column(matrix: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> pa.Array:
    """Return float32 ``(N, length)`` as lists, null where not ``valid``, bool ``(N,)``."""
    lengths = np.where(valid, matrix.shape[1], 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = pa.array(matrix[valid].ravel(), pa.float32())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~valid))


def _parse_json(lines: bytes) -> pa.Table:
    if not lines:
        return SCHEMA.empty_table().drop_columns("probabilities")
    schema = pa.schema([field for field in SCHEMA if field.name != "probabilities"])
    return pj.read_json(
        io.BytesIO(lines),
        read_options=pj.ReadOptions(block_size=max(_BLOCK_BYTES, _max_line_bytes(lines))),
        parse_options=pj.ParseOptions(explicit_schema=schema),
    )


def _max_line_bytes(lines: bytes) -> int:
    # Lines of one file are about as long as its first.
    return 4 * lines.find(b"\n")


def _is_intact(line: bytes) -> bool:
    """Whether a line can be parsed alone."""
    try:
        return bool(_parse_json(line).num_rows == 1)
    except pa.ArrowInvalid:
        return False


def _to_schema(parsed: pa.Table, class_names: Sequence[str]) -> pa.Table:
    n = parsed.num_rows
    probabilities, names = _parse_probabilities(parsed, class_names)
    columns = {
        name: parsed.column(name) if name in parsed.column_names else pa.nulls(n, field.type)
        for name, field in zip(SCHEMA.names, SCHEMA, strict=True)
    }
    columns["probabilities"] = probabilities
    metadata = {CLASS_NAMES: json.dumps(names)}
    return pa.table(columns, schema=SCHEMA.with_metadata(metadata))


def _parse_probabilities(
    parsed: pa.Table, class_names: Sequence[str]
) -> tuple[pa.Array, list[str]]:
    """Return one list a line, and the classes.

    What an answer of schema version 1 left out, as with ``top_k``, gets equal parts of the rest.
    """
    if "probabilities" not in parsed.column_names or pa.types.is_null(
        parsed.schema.field("probabilities").type
    ):
        return pa.nulls(parsed.num_rows, _NUMBERS), list(class_names)
    column = parsed.column("probabilities").combine_chunks()
    logged = [field.name for field in column.type]
    names = list(class_names) if set(logged) <= set(class_names) else logged
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    matrix = np.full((len(valid), len(names)), np.nan, np.float32)
    for name in logged:
        values = pc.cast(pc.struct_field(column, name), pa.float32())
        matrix[:, names.index(name)] = values.to_numpy(zero_copy_only=False)
    is_missing = np.isnan(matrix)
    if is_missing[valid].any():
        rest = np.clip(1.0 - np.nansum(matrix, axis=1), 0.0, None)
        share = rest / np.maximum(1, is_missing.sum(axis=1))
        matrix = np.where(is_missing, share[:, None].astype(np.float32), matrix)
    return build_matrix_column(matrix, valid), names
