"""Overhead of an artifact store on S3: a training run, and a dataset of 1 GB saved and loaded.

One real S3 server on this machine serves all. Three comparisons: the same short training run with a
local store and with the bucket; saving the dataset to the bucket, and loading it from there,
against plain s3fs, which sends and fetches the same files without checksums, manifest or memory
mapping. Target: at least 0.7 of plain s3fs's throughput, memory bounded by the chunks under way.
MEGABYTES (default 1,000), PAIRS pairs (default 3); ``quick`` leaves the training run out.
Run: python -m benchmarks.s3_store [MEGABYTES [PAIRS [quick]]]
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.anonymous_memory import PeakMemory
from benchmarks.dataset_artifact import (
    FOLDER,
    STORE,
    artifact_folder,
    generate_dataset,
    materializer_over,
    report,
)
from benchmarks.harness import Side, compare, parse_arguments
from benchmarks.orchestration import Bench
from cv_factory.data.dataset import ImageDataset, ScratchFile
from tests.support.s3_server import BUCKET, WEED, S3Server

_STACK = """
extends: local
components:
  artifact_store:
    name: bench_{name}
    flavor: {flavor}
    configuration: {{path: "{path}"}}
  experiment_tracker:
    name: bench_mlflow
    flavor: mlflow
    configuration: {{tracking_uri: "sqlite:///{folder}/mlflow.db"}}
  model_registry:
    name: bench_mlflow
    flavor: mlflow
"""
_RUN = ("run.py", "--pipeline", "training", "--no-cache",
        *("--set", "train.epochs=3", "--set", "gates=[]"))  # fmt: skip


def s3fs_upload() -> dict[str, float]:
    """Send the dataset's files with plain s3fs."""
    filesystem = _filesystem()

    def send() -> None:
        for file in sorted(artifact_folder("ours").iterdir()):
            filesystem.put_file(str(file), f"{BUCKET}/plain/{file.name}")

    return _measured(send)


def our_upload() -> dict[str, float]:
    """Save the dataset to the bucket, from a scratch file, as ingestion leaves it."""
    materializer = _materializer()
    scratch = ScratchFile("images.npy")
    shutil.copyfile(artifact_folder("ours") / "images.npy", scratch.path)
    dataset = replace(ImageDataset.load(artifact_folder("ours")), backing=scratch)
    return _measured(lambda: materializer.save(dataset))


def s3fs_download() -> dict[str, float]:
    """Fetch the dataset's files with plain s3fs."""
    filesystem = _filesystem()

    def fetch() -> None:
        with tempfile.TemporaryDirectory(dir=os.environ[FOLDER]) as folder:
            for source in filesystem.ls(f"{BUCKET}/ours", detail=False):
                filesystem.get_file(source, f"{folder}/{source.rpartition('/')[2]}")

    return _measured(fetch)


def our_download() -> dict[str, float]:
    """Load the dataset from the bucket, verified and mapped into memory."""
    materializer = _materializer()
    return _measured(lambda: materializer.load(ImageDataset))


def _measured(work: Callable[[], object]) -> dict[str, float]:
    os.sync()  # what was written before must not be waited for now
    with PeakMemory() as memory:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "MB": memory.growth / 1e6}


def _filesystem() -> Any:
    import fsspec

    filesystem = fsspec.filesystem("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    filesystem.exists(f"{BUCKET}/nothing")  # connects
    return filesystem


def _materializer() -> Any:
    from materializers.dataset import ImageDatasetMaterializer

    materializer = materializer_over(ImageDatasetMaterializer, "ours")
    materializer.artifact_store.exists(f"s3://{BUCKET}/nothing")  # connects
    return materializer


def _compare_runs(folder: Path, pairs: int) -> None:
    """Compare the run on two stacks that differ in their artifact store alone."""
    folder.mkdir()
    bench = Bench(folder)
    stores = {"local": str(folder / "store"), "s3": f"s3://{BUCKET}/zenml"}
    sides = []
    for flavor, path in stores.items():
        name = f"bench-{flavor}"
        content = _STACK.format(name=flavor, flavor=flavor, path=path, folder=folder)
        (bench.root / "stacks" / f"{name}.yaml").write_text(content, encoding="utf-8")
        bench.run("-m", "stacks", "apply", name)
        command = [sys.executable, *_RUN, "--stack", name]
        sides.append(Side(f"{flavor} store", command, env=bench.env, cwd=bench.root))
    comparison = compare("s3_store_run", *sides, pairs=pairs)
    comparison.save()
    console = Console()
    console.print(comparison.table())
    added = comparison.difference()
    console.print(f"Added by S3: median {added.median:.1f} s ({added.min:.1f} to {added.max:.1f})")


def main() -> int:
    """Start the server, compare and print."""
    megabytes, pairs, words = parse_arguments(megabytes=1000, pairs=3, words=[])
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for name in ("ours", "server"):
            (folder / name).mkdir()
        generate_dataset(megabytes).save(folder / "ours")
        server = S3Server(str(WEED), folder / "server")
        try:
            os.environ |= {**server.environment, FOLDER: directory, STORE: f"s3://{BUCKET}"}
            upload = s3fs_upload, our_upload
            report("s3_store_upload", *upload, pairs)
            download = s3fs_download, our_download
            report("s3_store_download", *download, pairs)
            if "quick" not in words:
                _compare_runs(folder / "bench", pairs)
        finally:
            server.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
