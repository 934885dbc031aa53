"""Batch inference: every record of a source through a predictor, into Parquet parts.

A part holds a fixed range of the source and appears whole or not at all, so that a job that was
killed goes on where it stopped. Nothing grows with the number of images.
"""

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cv_factory.artifacts.files import canonical_json, fingerprint
from cv_factory.config.data import DataConfig
from cv_factory.data.reading import (
    ImageFormat,
    chosen_positions,
    chunked,
    decode_record,
    results_in_order,
)
from cv_factory.data.sources import ImageRecord, ImageSource
from cv_factory.errors import ArtifactError
from cv_factory.inference.batch_output import OutputError, OutputFolder
from cv_factory.inference.batch_predictions import BatchPredictions
from cv_factory.inference.predictor import Predictor
from cv_factory.progress import say, track

_JOB, _ACCOUNT = "job.json", "batch_predictions.json"
_TASK = 32
_PIXEL_BYTES = 4 * 2**20


@dataclass(frozen=True)
class ScoringModel:
    """The predictor that scores, and the registered version that it belongs to."""

    name: str
    version: int
    predictor: Predictor


@dataclass(frozen=True)
class _Row:
    """One record with the probabilities float32 ``(K,)`` that it was given, or why it was not.

    It holds no pixels: the rows of a whole part wait to be written.
    """

    record: ImageRecord
    problem: str
    probabilities: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class BatchJob:
    """What is scored by what.

    Attributes:
        source: Open; its records need no labels.
        config: Limits of decoding, and how many records to take.
        model: What scores.
        rows_per_part: Rows of a part; the last one may have fewer.
    """

    source: ImageSource
    config: DataConfig
    model: ScoringModel
    rows_per_part: int

    @cached_property
    def identity(self) -> dict[str, str | int | None]:
        """Everything that decides what stands in which part."""
        config, model = self.config, self.model
        return {
            "source": self.source.fingerprint(),
            "predictor": model.predictor.fingerprint,
            "model": model.name,
            "version": model.version,
            "limit": config.limit,
            "decoding": fingerprint([config.max_pixels, config.max_bytes, config.max_aspect_ratio]),
            "rows_per_part": self.rows_per_part,
        }


def score(job: BatchJob, output: OutputFolder) -> BatchPredictions:
    """Score all records that are not scored yet and return the account of all of them.

    Args:
        job: What to score.
        output: Where the parts go; what an earlier, interrupted call wrote there is kept.

    Raises:
        ArtifactError: The predictor answers its golden samples differently than at export.
        OutputError: The folder holds something else, or cannot be written to.
        DataError: The source went away.
    """
    _prove(job.model)
    present = _claim(output, job)
    if _ACCOUNT in present:
        say(f"{output.root} is complete already: nothing is left to score")
        return _read_account(output)
    positions = chosen_positions(len(job.source), job.config.limit)
    parts = _parts(len(positions), job.rows_per_part)
    missing = {name: span for name, span in parts.items() if name not in present}
    if len(missing) < len(parts):
        say(f"{len(parts) - len(missing)} of {len(parts)} parts are there already")
    left = np.concatenate([positions[span] for span in missing.values()] or [positions[:0]])
    rows = track(_score(job, left), "Scoring images", len(left))
    for name, part in zip(missing, chunked(rows, job.rows_per_part), strict=True):
        output.write(name, _parquet(part, job.model))
    account = _account(job, output, list(parts))
    output.write(_ACCOUNT, canonical_json(asdict(account)).encode())
    return account


def _prove(model: ScoringModel) -> None:
    golden = model.predictor.golden
    answered = model.predictor.predict_single_threaded(golden.images)
    golden.check(answered, f"{model.name} version {model.version}")


def _claim(output: OutputFolder, job: BatchJob) -> set[str]:
    """Mark the folder as this job's own and return what is in it."""
    present = output.names()
    content = canonical_json(job.identity).encode()
    if _JOB not in present:
        if present:
            raise OutputError(
                f"{output.root} is not empty, and not of a batch job: name another folder with "
                "output.path."
            )
        output.write(_JOB, content)
    elif output.read(_JOB) != content:
        raise OutputError(
            f"{output.root} holds predictions of other images, another model version or other "
            "settings: name another folder with output.path, or remove it."
        )
    return present


def _parts(n: int, rows_per_part: int) -> dict[str, slice]:
    """Return the range of positions of each part, by file name."""
    starts = range(0, n, rows_per_part)
    return {
        f"part-{number:06d}.parquet": slice(start, min(start + rows_per_part, n))
        for number, start in enumerate(starts)
    }


def _score(job: BatchJob, positions: npt.NDArray[np.int64]) -> Iterator[_Row]:
    """Yield a row for each record, in order; all cores read, decode and score, not far ahead."""
    source, predictor = job.source, job.model.predictor
    target = ImageFormat(*predictor.contract.input_shape)
    pixel_bytes = target.height * target.width * target.channels
    size = max(1, min(_TASK, _PIXEL_BYTES // pixel_bytes))
    work = partial(
        _score_task,
        target=target,
        config=job.config,
        probabilities=predictor.predict_single_threaded,
    )
    with ThreadPoolExecutor(source.readers, thread_name_prefix="score") as pool:
        tasks = chunked(source.records(positions), size)
        for rows in results_in_order(tasks, partial(pool.submit, work), 3 * source.readers):
            yield from rows


def _score_task(
    records: list[ImageRecord],
    target: ImageFormat,
    config: DataConfig,
    probabilities: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]],
) -> list[_Row]:
    decoded = [decode_record(record, target, config) for record in records]
    good = [d.pixels for d in decoded if d.pixels is not None]
    scores = iter(probabilities(np.stack(good)) if good else ())
    return [_Row(d.record, d.problem, None if d.pixels is None else next(scores)) for d in decoded]


def _parquet(rows: list[_Row], model: ScoringModel) -> bytes:
    """Encode a part."""
    names = model.predictor.contract.class_names
    scored = [row.probabilities for row in rows]
    columns = {
        "id": pa.array([row.record.id for row in rows], pa.large_string()),
        "location": pa.array([row.record.location for row in rows], pa.large_string()),
        "known_label": pa.array([row.record.label for row in rows], pa.string()),
        "label": pa.array([None if p is None else names[p.argmax()] for p in scored], pa.string()),
        "probabilities": _lists(scored),
        "model_version": pa.array([model.version] * len(rows), pa.int64()),
        "quarantined": pa.array([row.problem or None for row in rows], pa.string()),
    }
    facts = {"model": model.name, "class_names": json.dumps(names)}
    table = pa.table(columns).replace_schema_metadata(facts)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _lists(scored: list[npt.NDArray[np.float32] | None]) -> pa.ListArray:
    """Return one list a row, null where there is none, without a Python number for each value."""
    lengths = [0 if values is None else len(values) for values in scored]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = np.concatenate([*(v for v in scored if v is not None), np.empty(0, np.float32)])
    missing = pa.array([values is None for values in scored])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=missing)


def _account(job: BatchJob, output: OutputFolder, parts: list[str]) -> BatchPredictions:
    """Count what stands in the parts, those of an interrupted call included."""
    source, model = job.source, job.model
    counts = dict.fromkeys(model.predictor.contract.class_names, 0)
    n_rows = n_quarantined = 0
    for name in parts:
        table = pq.read_table(io.BytesIO(output.read(name)), columns=["label"])
        n_rows += table.num_rows
        for entry in table.column("label").value_counts().to_pylist():
            if entry["values"] is None:
                n_quarantined += entry["counts"]
            else:
                counts[entry["values"]] += entry["counts"]
    return BatchPredictions(
        folder=output.root,
        source=source.description,
        source_fingerprint=source.fingerprint(),
        model_name=model.name,
        model_version=model.version,
        predictor_fingerprint=model.predictor.fingerprint,
        n_rows=n_rows,
        n_quarantined=n_quarantined,
        class_counts=counts,
        parts=tuple(parts),
    )


def _read_account(output: OutputFolder) -> BatchPredictions:
    where = f"{output.root}/{_ACCOUNT}"
    try:
        fields = json.loads(output.read(_ACCOUNT))
    except ValueError as error:
        raise ArtifactError(f"{where} is not JSON ({error}): it is damaged.") from None
    return BatchPredictions.from_dict(fields, where)
