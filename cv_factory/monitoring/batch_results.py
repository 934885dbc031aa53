"""Reader of batch inference's output: Parquet parts with the predictions of a job.

They have neither features nor statistics of the images; quarantined images are refused ones.
"""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cv_factory.errors import ConfigError
from cv_factory.inference.batch_output import OutputFolder
from cv_factory.monitoring.prediction_table import CLASS_NAMES, SCHEMA


def read_batch_results(folder: OutputFolder) -> Iterator[pa.Table]:
    """Yield a table for each part of a job's output, in the order of its source.

    Raises:
        ConfigError: The folder holds no batch predictions.
        OutputError: It cannot be read.
    """
    parts = sorted(n for n in folder.names() if n.startswith("part-") and n.endswith(".parquet"))
    if not parts:
        raise ConfigError(f"{folder.root} holds no batch predictions (part-*.parquet).")
    # The parts do not say when they were written.
    now = datetime.now(UTC)
    for name in parts:
        yield _convert(pq.read_table(io.BytesIO(folder.read(name))), now)


def _convert(part: pa.Table, time: datetime) -> pa.Table:
    n, metadata = part.num_rows, part.schema.metadata
    is_refused = pc.is_valid(part.column("quarantined"))
    refused = pa.scalar("refused", pa.string())
    columns = {
        "id": part.column("id"),
        "time": pa.repeat(pa.scalar(time, SCHEMA.field("time").type), n),
        "model": pa.repeat(metadata[b"model"].decode(), n),
        "version": part.column("model_version"),
        "label": part.column("label"),
        "probabilities": part.column("probabilities"),
        "sampling_probability": pa.repeat(1.0, n),
        "event": pc.if_else(is_refused, refused, pa.scalar(None, pa.string())),
        "n": pc.cast(is_refused, pa.int64()),
    }
    if "unfamiliarity" in part.column_names:
        columns["unfamiliarity"] = part.column("unfamiliarity")
    arrays = [
        pc.cast(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type)
        for f in SCHEMA
    ]
    names = json.dumps(json.loads(metadata[CLASS_NAMES]))
    return pa.table(arrays, schema=SCHEMA.with_metadata({CLASS_NAMES: names}))
