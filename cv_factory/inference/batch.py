"""Batch inference: predicts every record of a source and writes Parquet parts.

A part holds a fixed range of the source and is written whole or not at all, so that a killed job
resumes where it stopped. Memory does not grow with the number of images.
"""

import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cv_factory.artifacts.files import canonical_json, fingerprint
from cv_factory.config.data import DataConfig
from cv_factory.data.reading import (
    ImageFormat,
    chunked,
    decode_record,
    results_in_order,
    sample_positions,
)
from cv_factory.data.sources import ImageRecord, ImageSource
from cv_factory.errors import ArtifactError
from cv_factory.inference.batch_output import OutputError, OutputFolder
from cv_factory.inference.batch_predictions import BatchPredictions
from cv_factory.inference.predictor import ImageScores, Prediction, Predictor
from cv_factory.progress import track

_LOGGER = logging.getLogger(__name__)
#: Readers of Parquet folders skip names with an underscore: the folder is a dataset.
_JOB_FILE, _SUMMARY_FILE = "_job.json", "_batch_predictions.json"
#: Their names in folders of earlier releases.
_FORMER_NAMES = {"job.json": _JOB_FILE, "batch_predictions.json": _SUMMARY_FILE}
#: Upper bounds of one task of a thread.
_TASK_IMAGES, _TASK_BYTES = 32, 4 * 2**20
_MAX_LOGGED_REASONS = 10


@dataclass(frozen=True)
class ScoringModel:
    """Registered model version and its predictor."""

    name: str
    version: int
    predictor: Predictor


@dataclass(frozen=True)
class ScoredRecord:
    """One record with its scores, or the problem that prevented them.

    It holds no pixels: the rows of a whole part wait to be written.
    """

    record: ImageRecord
    problem: str
    scores: ImageScores | None


@dataclass(frozen=True)
class BatchJob:
    """Inputs of one batch inference job.

    Attributes:
        source: Open image source; its records need no labels.
        config: Limits of decoding and of the number of records.
        model: The model version that predicts.
        rows_per_part: Rows of a part; the last one may have fewer.
    """

    source: ImageSource
    config: DataConfig
    model: ScoringModel
    rows_per_part: int

    @cached_property
    def identity(self) -> dict[str, str | int | None]:
        """Fields that determine the content of each part."""
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
    """Predict all records that have no prediction yet and return the summary of all.

    Args:
        job: The job.
        output: Folder of the parts; those of an earlier, interrupted call are kept.

    Raises:
        ArtifactError: The predictor's golden samples differ from their values at export.
        OutputError: The folder holds other files, or cannot be written to.
        DataError: The source became unavailable.
    """
    _verify_golden_samples(job.model)
    files = _claim(output, job)
    if _SUMMARY_FILE in files:
        _LOGGER.info("%s is already complete", output.root)
        return _load_summary(output)
    output.remove_partial_files()
    positions = sample_positions(len(job.source), job.config.limit)
    parts = _part_ranges(len(positions), job.rows_per_part)
    missing = {name: span for name, span in parts.items() if name not in files}
    if len(missing) < len(parts):
        _LOGGER.info("%d of %d parts are already there", len(parts) - len(missing), len(parts))
    remaining = np.concatenate([positions[span] for span in missing.values()] or [positions[:0]])
    scored = predict_records(job.source, job.config, job.model.predictor, remaining)
    rows = track(scored, "Scoring images", len(remaining))
    for name, part in zip(missing, chunked(rows, job.rows_per_part), strict=True):
        output.write(name, _encode_parquet(part, job.model))
    summary = _summarize(job, output, list(parts))
    output.write(_SUMMARY_FILE, canonical_json(asdict(summary)).encode())
    return summary


def _verify_golden_samples(model: ScoringModel) -> None:
    golden = model.predictor.golden
    outputs = model.predictor.predict_single_threaded(golden.images)
    golden.verify(outputs, f"{model.name} version {model.version}")


def _claim(output: OutputFolder, job: BatchJob) -> set[str]:
    """Mark the folder as this job's and return the names of its files.

    Files with names of earlier releases are renamed.

    Raises:
        OutputError: It belongs to another job, or is not empty.
    """
    files = output.names()
    content = canonical_json(job.identity).encode()
    job_file = next((name for name in (_JOB_FILE, "job.json") if name in files), None)
    if job_file is None:
        if files:
            raise OutputError(
                f"{output.root} is not empty and belongs to no batch job: name another folder in "
                "output.path."
            )
        output.write(_JOB_FILE, content)
    elif output.read(job_file) != content:
        raise OutputError(
            f"{output.root} holds predictions of other images, another model version or other "
            "settings: name another folder in output.path, or remove it."
        )
    for former in _FORMER_NAMES.keys() & files:
        output.rename(former, _FORMER_NAMES[former])
    return {_FORMER_NAMES.get(name, name) for name in files}


def _part_ranges(n: int, rows_per_part: int) -> dict[str, slice]:
    """Return the range of positions of each part, by file name."""
    starts = range(0, n, rows_per_part)
    return {
        f"part-{number:06d}.parquet": slice(start, min(start + rows_per_part, n))
        for number, start in enumerate(starts)
    }


def predict_records(
    source: ImageSource,
    config: DataConfig,
    predictor: Predictor,
    positions: npt.NDArray[np.int64],
) -> Iterator[ScoredRecord]:
    """Predict records in order; all cores read, decode and predict a little ahead."""
    contract = predictor.contract
    target = ImageFormat(*contract.input_shape, contract.value_range)
    image_bytes = target.height * target.width * target.channels
    size = max(1, min(_TASK_IMAGES, _TASK_BYTES // image_bytes))
    work = partial(
        _predict_task, target=target, config=config, predict=predictor.predict_single_threaded
    )
    with ThreadPoolExecutor(source.readers, thread_name_prefix="score") as pool:
        tasks = chunked(source.records(positions), size)
        for rows in results_in_order(tasks, partial(pool.submit, work), 3 * source.readers):
            yield from rows


def _predict_task(
    records: list[ImageRecord],
    target: ImageFormat,
    config: DataConfig,
    predict: Callable[[npt.NDArray[np.uint8]], Prediction],
) -> list[ScoredRecord]:
    decoded = [decode_record(record, target, config) for record in records]
    images = [d.pixels for d in decoded if d.pixels is not None]
    scores = iter(predict(np.stack(images)).rows() if images else ())
    return [
        ScoredRecord(d.record, d.problem, None if d.pixels is None else next(scores))
        for d in decoded
    ]


def _encode_parquet(rows: list[ScoredRecord], model: ScoringModel) -> bytes:
    contract = model.predictor.contract
    names = contract.class_names
    probabilities = [None if row.scores is None else row.scores.probabilities for row in rows]
    labels = [None if p is None else names[p.argmax()] for p in probabilities]
    columns = {
        "id": pa.array([row.record.id for row in rows], pa.large_string()),
        "location": pa.array([row.record.location for row in rows], pa.large_string()),
        "known_label": pa.array([row.record.label for row in rows], pa.string()),
        "label": pa.array(labels, pa.string()),
        "probabilities": _list_array(probabilities),
        "model_version": pa.array([model.version] * len(rows), pa.int64()),
        "quarantined": pa.array([row.problem or None for row in rows], pa.string()),
    }
    if contract.familiarity is not None:
        scores = [row.scores for row in rows]
        columns |= {
            "unfamiliar": pa.array([s and s.is_unfamiliar for s in scores], pa.bool_()),
            "unfamiliarity": pa.array([s and s.unfamiliarity for s in scores], pa.float32()),
        }
    metadata = {"model": model.name, "class_names": json.dumps(names)}
    table = pa.table(columns).replace_schema_metadata(metadata)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _list_array(rows: list[npt.NDArray[np.float32] | None]) -> pa.ListArray:
    """Return one list a row, null for None, without a Python object for each value."""
    lengths = [0 if values is None else len(values) for values in rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = np.concatenate([*(v for v in rows if v is not None), np.empty(0, np.float32)])
    is_null = pa.array([values is None for values in rows])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=is_null)


def _summarize(job: BatchJob, output: OutputFolder, parts: list[str]) -> BatchPredictions:
    """Count the rows of all parts, including those of an interrupted call, and log the reasons."""
    source, model = job.source, job.model
    counts = dict.fromkeys(model.predictor.contract.class_names, 0)
    n_rows = n_quarantined = n_unfamiliar = 0
    is_scored = model.predictor.contract.familiarity is not None
    columns = ["label", "quarantined", *(["unfamiliar"] if is_scored else [])]
    reasons: Counter[str] = Counter()
    for name in parts:
        table = pq.read_table(io.BytesIO(output.read(name)), columns=columns)
        n_rows += table.num_rows
        if is_scored:
            n_unfamiliar += pc.sum(table.column("unfamiliar")).as_py() or 0
        for entry in table.column("label").value_counts().to_pylist():
            if entry["values"] is None:
                n_quarantined += entry["counts"]
            else:
                counts[entry["values"]] += entry["counts"]
        reasons.update(table.column("quarantined").drop_null().to_pylist())
    for reason, count in reasons.most_common(_MAX_LOGGED_REASONS):
        _LOGGER.info("%s quarantined: %s", f"{count:,}", reason)
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
        n_unfamiliar=n_unfamiliar if is_scored else None,
        notices=source.notices,
    )


def _load_summary(output: OutputFolder) -> BatchPredictions:
    file = f"{output.root}/{_SUMMARY_FILE}"
    try:
        fields = json.loads(output.read(_SUMMARY_FILE))
    except ValueError as error:
        raise ArtifactError(f"{file} is damaged: it is not JSON ({error}).") from None
    return BatchPredictions.from_dict(fields, file)
