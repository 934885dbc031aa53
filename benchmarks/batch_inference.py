"""Batch inference against the bare loop: decode and ONNX Runtime on all cores, and nothing else.

Both score the same PNGs (64x64, pieces of scikit-learn's photographs) with the same exported
predictor, a small CNN. The bare loop keeps no ids, no reasons and no results; batch inference
lists the folder, keeps the order and writes Parquet. Rates are measured without imports.
COUNT images (default 20,000), PAIRS pairs (default 4).
Run: python -m benchmarks.batch_inference [COUNT [PAIRS]]
"""

import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.harness import Side, parse_arguments
from benchmarks.ingestion import compare_rates, write_photographs
from cv_factory.cpu import available_cpus

#: Variable that names the folder in which both sides find ``images`` and ``predictor``.
FOLDER = "BENCHMARK_WORKPLACE"
_BATCH = 32


def export_small_cnn(root: Path, images: Path) -> None:
    """Export a small CNN for these images; one epoch, since speed does not depend on weights."""
    from cv_factory.config.data import DataConfig
    from cv_factory.config.split import SplitConfig
    from cv_factory.config.train import TrainConfig
    from cv_factory.config.transform import TransformConfig
    from cv_factory.data.ingest import ingest
    from cv_factory.data.split import split_dataset
    from cv_factory.export.onnx_graph import export_predictor
    from cv_factory.models.small_cnn import SmallCNNConfig
    from cv_factory.training.train import train
    from cv_factory.transforms.fitted import fit_transform

    config = DataConfig(source="folder", path=str(images), limit=400, height=64, width=64)
    dataset = ingest(config)
    split = split_dataset(dataset, SplitConfig())
    transform = fit_transform(dataset, split.train, TransformConfig())
    trained = train(
        dataset, split, transform, SmallCNNConfig(), TrainConfig(epochs=1, batch_size=64)
    )
    root.mkdir()
    export_predictor(trained, transform, {}, dataset, split.validation).save(root)


def bare_loop() -> dict[str, float]:
    """Decode and score in as many threads as CPUs."""
    from cv_factory.data.decode import decode
    from cv_factory.inference.predictor import Predictor

    root = Path(os.environ[FOLDER])
    predictor = Predictor.load(root / "predictor")
    height, width, channels = predictor.contract.input_shape
    files = sorted((root / "images").rglob("*.png"))

    def score(start: int) -> int:
        images = [
            decode(
                file.read_bytes(), height=height, width=width, channels=channels, max_pixels=10**8
            ).pixels
            for file in files[start : start + _BATCH]
        ]
        return len(predictor.predict_single_threaded(np.stack(images)))

    score(0)
    start = time.perf_counter()
    with ThreadPoolExecutor(available_cpus()) as pool:
        scored = sum(pool.map(score, range(0, len(files), _BATCH)))
    return {"images_per_second": scored / (time.perf_counter() - start)}


def batch_inference() -> dict[str, float]:
    """Score the folder."""
    return score_folder("images", 8192)


def score_folder(name: str, rows_per_part: int) -> dict[str, float]:
    """Score a folder of the workplace."""
    from cv_factory.config.data import DataConfig
    from cv_factory.data.sources import open_source
    from cv_factory.inference.batch import BatchJob, ScoringModel, score
    from cv_factory.inference.batch_output import OutputFolder
    from cv_factory.inference.predictor import Predictor

    root = Path(os.environ[FOLDER])
    predictor = Predictor.load(root / "predictor")
    predictor.predict_single_threaded(predictor.golden.images)
    shutil.rmtree(root / "scores", ignore_errors=True)
    config = DataConfig(source="folder", path=str(root / name))
    start = time.perf_counter()
    with open_source(config, labelled=False) as source:
        job = BatchJob(source, config, ScoringModel("photographs", 1, predictor), rows_per_part)
        scored = score(job, OutputFolder.open(str(root / "scores"), {})).n_rows
    return {"images_per_second": scored / (time.perf_counter() - start)}


def main() -> int:
    """Compare, print and store the result."""
    n, pairs = parse_arguments(count=20_000, pairs=4)
    with tempfile.TemporaryDirectory() as directory:
        os.environ[FOLDER] = directory
        write_photographs(Path(directory, "images"), n, size=64, kind="png")
        export_small_cnn(Path(directory, "predictor"), Path(directory, "images"))
        compare_rates(
            "batch_inference",
            Side("bare loop", bare_loop),
            Side("batch inference", batch_inference),
            pairs,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
