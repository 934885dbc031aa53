"""Reading a window of predictions, joined with labels: from the log, and from the compacted store.

PREDICTIONS (default 1,000,000) of 10 classes with 40 features, in log files of 64 MiB; a label of
every hundredth. Each is read ROUNDS (default 3) times, each time by a fresh process, whose
peak memory is compared with that of the imports alone.
Run: python -m benchmarks.prediction_store [PREDICTIONS [ROUNDS]]
"""

import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import (
    Sample,
    Side,
    Spread,
    describe_machine,
    parse_arguments,
    run_once,
    save_result,
)
from cv_factory.inference.batch_output import OutputFolder
from cv_factory.monitoring.compaction import compact, read_logs, read_store
from cv_factory.monitoring.labels import (
    RECORD_COLUMNS,
    SAMPLE_COLUMNS,
    Labels,
    build_table,
    join_labels,
)
from cv_factory.monitoring.prediction_reader import Selection, build_window
from cv_factory.serving.json_encoder import encode_json

FOLDER = "BENCHMARK_PREDICTIONS"
CLASSES = tuple(f"class_{number}" for number in range(10))
_FILE_BYTES = 64 * 2**20
_START = datetime(2026, 1, 1, tzinfo=UTC)


def write_log(folder: Path, n: int) -> Path:
    """Write the log of n predictions, and the file of labels; return the log's folder."""
    log = folder / "log"
    log.mkdir()
    labels, lines, size, number = [], [], 0, 0
    for position, line in enumerate(_lines(n)):
        if position % 100 == 0:
            labels.append({"prediction_id": line["id"], "label": CLASSES[position // 100 % 10]})
        lines.append(encode_json(line) + b"\n")
        size += len(lines[-1])
        if size >= _FILE_BYTES or position == n - 1:
            name = f"predictions-20260101T{number:06d}.000000Z-1.jsonl"
            (log / name).write_bytes(b"".join(lines))
            lines, size, number = [], 0, number + 1
    (folder / "labels.json").write_text(json.dumps(labels))
    return log


def _lines(n: int) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(0)
    for position in range(n):
        probabilities = generator.dirichlet(np.full(len(CLASSES), 0.1)).astype(np.float32)
        brightness, contrast, sharpness = generator.random(3).round(6).tolist()
        time = _START + timedelta(milliseconds=50 * position)
        yield {
            "schema": 2,
            "model": "benchmark",
            "version": "1",
            "id": str(uuid.UUID(int=position, version=4)),
            "time": time.isoformat(timespec="milliseconds"),
            "arm": None,
            "key": "anyone",
            "request_id": f"{position:032x}",
            "label": CLASSES[int(probabilities.argmax())],
            "probabilities": dict(zip(CLASSES, probabilities.tolist(), strict=True)),
            "unfamiliar": False,
            "unfamiliarity": float(probabilities[0]),
            "features": generator.standard_normal(40, np.float32),
            "cached": False,
            "sampling_probability": 1.0,
            "width": 64,
            "height": 64,
            "brightness": brightness,
            "contrast": contrast,
            "sharpness": sharpness,
            "image_hmac": f"{position * 7919:064x}",
        }


def read_log() -> dict[str, float]:
    """Read the window from the log."""
    folder = Path(os.environ[FOLDER])
    return _read(lambda: (table for _, table, _ in read_logs([folder / "log"], CLASSES)))


def read_compacted() -> dict[str, float]:
    """Read the window from the store."""
    store = OutputFolder.open(str(Path(os.environ[FOLDER], "store")), {})
    return _read(lambda: read_store(store, Selection("benchmark")))


def read_nothing() -> dict[str, float]:
    """Build an empty window."""
    return _read(lambda: iter(()))


def _read(read_tables: Callable[[], Iterator[Any]]) -> dict[str, float]:
    start = time.perf_counter()
    given = json.loads(Path(os.environ[FOLDER], "labels.json").read_text())
    common = {"time": _START.isoformat(), "source": "person:benchmark", "is_blind": True}
    records = [{"id": str(n), **common, **label} for n, label in enumerate(given)]
    labels = Labels(build_table(records, RECORD_COLUMNS), build_table([], SAMPLE_COLUMNS))
    window = build_window(read_tables(), Selection("benchmark"), CLASSES)
    window = join_labels(window, labels)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "rows": len(window), "labels": int((window.labels >= 0).sum())}


def compact_log(log: Path, store: Path) -> float:
    """Compact the log and return the seconds."""
    start = time.perf_counter()
    # The last file is closed, too: its process has begun none after it, but has ended.
    for file in log.iterdir():
        os.utime(file, (0, 0))
    compact(log, OutputFolder.open(str(store), {}), "benchmark", CLASSES)
    return time.perf_counter() - start


def report(samples: dict[str, list[Sample]], base_bytes: int) -> None:
    """Print medians and ranges."""
    for name, runs in samples.items():
        seconds = Spread.of([run.values["seconds"] for run in runs])
        memory = Spread.of([run.peak_rss_bytes for run in runs])
        rows = f"{runs[0].values['rows']:,} rows, {runs[0].values['labels']:,} labels"
        print(
            f"{name:6} {rows}: {seconds.median:.1f} s ({seconds.min:.1f}-{seconds.max:.1f}), peak "
            f"{memory.median / 1e6:,.0f} MB, {(memory.median - base_bytes) / 1e6:,.0f} over imports"
        )


def main() -> int:
    """Measure, print and store the result."""
    n, rounds = parse_arguments(predictions=1_000_000, rounds=3)
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        log = write_log(folder, n)
        bytes_of_log = sum(file.stat().st_size for file in log.iterdir())
        env = {FOLDER: directory}
        base = run_once(Side("imports", read_nothing, env))
        samples: dict[str, list[Sample]] = {
            "log": [run_once(Side("log", read_log, env)) for _ in range(rounds)]
        }
        compaction_s = compact_log(log, folder / "store")
        bytes_of_store = sum(file.stat().st_size for file in (folder / "store").iterdir())
        samples["store"] = [run_once(Side("store", read_compacted, env)) for _ in range(rounds)]
    report(samples, base.peak_rss_bytes)
    print(
        f"compaction {compaction_s:.1f} s: {bytes_of_log / 1e6:,.0f} MB to "
        f"{bytes_of_store / 1e6:,.0f} MB"
    )
    result = {
        "machine": machine,
        "imports_peak_rss_bytes": base.peak_rss_bytes,
        "compaction_seconds": compaction_s,
        "log_bytes": bytes_of_log,
        "store_bytes": bytes_of_store,
        "samples": {name: [vars(run) for run in runs] for name, runs in samples.items()},
    }
    save_result("prediction_store", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
