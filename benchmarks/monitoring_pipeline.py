"""The whole monitoring pipeline on a large store, by ``run.py --pipeline monitoring``.

A version of the digits is trained; its store of monitoring is filled with PREDICTIONS (default
1,000,000) drawn from its own test outputs, in FILES (default 100) tables, and a label of every
hundredth; every twentieth image repeats the one before. ROUNDS (default 3) runs follow, each a
fresh process. Bars on 2 cores: 60 s, 1.5 GB. ``run.py monitoring`` then shows the last report; bar:
2 s.

Run: python -m benchmarks.monitoring_pipeline [PREDICTIONS [FILES [ROUNDS]]]
"""

import hashlib
import sys
import tempfile
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
from benchmarks.orchestration import Bench

MODEL = "digits"
_START = datetime(2026, 1, 1, tzinfo=UTC)
#: Predictions a label.
_LABELED = 100
#: Predictions a repeated image.
_REPEATED = 20
_TRAINING = (
    "model.name=logistic_regression",
    "evaluate.bootstrap_samples=100",
    "evaluate.robustness_images=200",
    "evaluate.latency_runs=0",
    "evaluate.explained_per_class=0",
    f"register.model_name={MODEL}",
    "gates=[]",
)
_FILL = """
import sys
from benchmarks.monitoring_pipeline import fill_store
fill_store(*map(int, sys.argv[1:]))
"""


def fill_store(n: int, n_files: int) -> None:
    """Write predictions and labels into the store of the active stack, in parts of equal size."""
    from cv_factory.inference.reference import Reference
    from cv_factory.monitoring.prediction_table import encode_parquet
    from registry.artifact_loader import load_artifact
    from registry.label_store import open_label_store
    from registry.monitoring_store import open_folder
    from registry.versions import REFERENCE, get_version

    artifact = get_version(MODEL, 1).get_artifact(REFERENCE)
    assert artifact is not None
    reference = load_artifact(artifact, Reference)
    store, generator = open_folder(MODEL, "predictions"), np.random.default_rng(0)
    for number, positions in enumerate(np.array_split(np.arange(n), n_files)):
        chosen = generator.integers(0, len(reference.test), len(positions))
        table = _build_table(reference, positions, chosen)
        span = (f"{table['time'][at].as_py():%Y%m%dT%H%M%S}" for at in (0, -1))
        name = f"predictions-{'-'.join(span)}-{number:032x}.parquet"
        store.write(name, encode_parquet(table))
        open_label_store(MODEL).add(_build_labels(reference, positions, chosen))


def _build_table(reference: Any, positions: Any, chosen: Any) -> Any:
    import json

    import pyarrow as pa

    from cv_factory.inference.reference import STATISTICS
    from cv_factory.monitoring.prediction_table import CLASS_NAMES, SCHEMA, build_matrix_column

    test, n = reference.test, len(positions)
    predicted, everywhere = test.predicted[chosen], np.ones(n, bool)
    # Equal images would be stored once each, which is smaller and faster than a real log.
    noise = np.random.default_rng(int(positions[0])).standard_normal(test.features[chosen].shape)
    features = (test.features[chosen] + 1e-3 * noise).astype(np.float32)
    columns: dict[str, Any] = {
        "id": [_id(position) for position in positions],
        "time": [_START + timedelta(seconds=int(position)) for position in positions],
        "model": [MODEL] * n,
        "version": ["1"] * n,
        "request_id": [f"{position:032x}" for position in positions],
        "key": ["anyone"] * n,
        "label": [reference.class_names[k] for k in predicted],
        "probabilities": build_matrix_column(test.probabilities[chosen], everywhere),
        "unfamiliarity": np.full(n, 0.5, np.float32),
        "features": build_matrix_column(features, everywhere),
        **dict(zip(STATISTICS, test.statistics[chosen].T, strict=True)),
        "cached": [False] * n,
        "image_hmac": [
            _hmac(int(position - (position % _REPEATED == 1))) for position in positions
        ],
        "sampling_probability": np.ones(n),
    }
    arrays = {field.name: columns.get(field.name, pa.nulls(n, field.type)) for field in SCHEMA}
    schema = SCHEMA.with_metadata({CLASS_NAMES: json.dumps(reference.class_names)})
    return pa.table(arrays, schema=schema)


def _build_labels(reference: Any, positions: Any, chosen: Any) -> Any:
    from cv_factory.monitoring.labels import RECORD_COLUMNS, build_table

    is_labeled = positions % _LABELED == 0
    common = {"model": MODEL, "source": "person:benchmark", "is_blind": True}
    rows = (
        {
            **common,
            "id": str(position),
            "time": (_START + timedelta(seconds=int(position))).isoformat(),
            "prediction_id": _id(position),
            "label": reference.class_names[label],
        }
        for position, label in zip(
            positions[is_labeled], reference.test.labels[chosen[is_labeled]], strict=True
        )
    )
    return build_table(rows, RECORD_COLUMNS)


def _hmac(number: int) -> str:
    return hashlib.sha256(number.to_bytes(8)).hexdigest()


def _id(position: int) -> str:
    # Version 4 of RFC 9562, as services number them.
    return f"{position:08x}-0000-4000-8000-{position:012x}"


def _describe(name: str, runs: list[Sample]) -> str:
    seconds = Spread.of([run.seconds for run in runs])
    memory = max(run.peak_rss_bytes for run in runs)
    return (
        f"{name}: {seconds.median:.1f} s ({seconds.min:.1f}-{seconds.max:.1f}), peak memory "
        f"{memory / 1e6:,.0f} MB"
    )


def main() -> int:
    """Measure, print and store the result."""
    n, n_files, rounds = parse_arguments(predictions=1_000_000, files=100, rounds=3)
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="cv-factory-bench-") as folder:
        bench = Bench(Path(folder))
        settings = [word for setting in _TRAINING for word in ("--set", setting)]
        bench.run("run.py", "--pipeline", "training", *settings)
        bench.run("-c", _FILL, str(n), str(n_files))
        commands = {
            "pipeline": ("--pipeline", "monitoring", "--set", "model.version=1"),
            "show": ("monitoring",),
        }
        samples = {
            name: [
                run_once(Side(name, [sys.executable, "run.py", *words], bench.env, cwd=bench.root))
                for _ in range(rounds)
            ]
            for name, words in commands.items()
        }
        verdict = bench.run("run.py", "monitoring")
    print(verdict, *(_describe(name, runs) for name, runs in samples.items()), sep="\n")
    result = {
        "machine": machine,
        "predictions": n,
        "files": n_files,
        "samples": {name: [vars(run) for run in runs] for name, runs in samples.items()},
    }
    save_result("monitoring_pipeline", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
