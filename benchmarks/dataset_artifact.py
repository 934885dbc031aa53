"""Storing and loading an ImageDataset of 1 GB, against ZenML and NumPy.

Three comparisons, each in fresh processes, imports not measured: loading from the local store with
the first batch of 256 images, against ZenML's own materializer for arrays (which reads pixels only:
no labels, no manifest, no checksums); saving until all is on the disk (and, beside it, until it is
in the page cache), against ``np.save`` of the pixels; loading from a bucket of a real S3 server,
with memory. MEGABYTES (default 1,000) of random 64x64x3 images, PAIRS pairs (default 6); ``save``
compares saving alone. Target: at least 0.9 of ``np.save`` until all is on the disk.
Run: python -m benchmarks.dataset_artifact [MEGABYTES [PAIRS [save]]]
"""

import hashlib
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.anonymous_memory import PeakMemory
from benchmarks.harness import Comparison, Side, Spread, compare, parse_arguments
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.image_manifest import MANIFEST_COLUMNS
from tests.support.s3_server import BUCKET, WEED, S3Server

FOLDER, STORE = "BENCHMARK_FOLDER", "BENCHMARK_STORE"
_SIDE, _BATCH = 64, 256
_WRITTEN = "written"


def stock_load() -> dict[str, float]:
    """Load the pixels with ZenML's materializer, and copy a batch."""
    from zenml.materializers.numpy_materializer import NumpyMaterializer

    return _timed(materializer_over(NumpyMaterializer, "stock"), np.ndarray, lambda array: array)


def our_load() -> dict[str, float]:
    """Load the dataset with this project's materializer, and copy a batch and its labels."""
    from materializers.dataset import ImageDatasetMaterializer

    materializer = materializer_over(ImageDatasetMaterializer, "ours")
    return _timed(materializer, ImageDataset, lambda dataset: dataset.images)


def _timed(
    materializer: Any, kind: type[Any], pixels: Callable[[Any], Any]
) -> dict[str, float]:  # fmt: skip
    with PeakMemory() as memory:
        start = time.perf_counter()
        loaded = materializer.load(kind)
        batch = pixels(loaded)[:_BATCH].copy()
        if isinstance(loaded, ImageDataset):
            loaded.labels[:_BATCH].copy()
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "MB": memory.growth / 1e6, "sum": float(batch.sum())}


def np_save() -> dict[str, float]:
    """Write the pixels with NumPy."""
    images = np.load(artifact_folder("stock") / "data.npy")
    return _saved(lambda folder: np.save(folder / "images.npy", images))


def our_save() -> dict[str, float]:
    """Write the dataset: pixels, manifest, and the header with fingerprint and checksums."""
    dataset = ImageDataset.load(artifact_folder("ours"))
    images = np.load(artifact_folder("stock") / "data.npy")
    dataset = ImageDataset(images, dataset.manifest, dataset.class_names, dataset.source)
    return _saved(dataset.save)


def _saved(save: Callable[[Path], None]) -> dict[str, float]:
    """Time a save until everything is on the disk, and until it is in the page cache."""
    target = _fresh_folder()
    start = time.perf_counter()
    save(target)
    unsynced = time.perf_counter() - start
    for file in target.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    return {"seconds": time.perf_counter() - start, "unsynced_seconds": unsynced}


def artifact_folder(name: str) -> Path:
    """Return a folder of the benchmark's own folder."""
    return Path(os.environ[FOLDER]) / name


def _fresh_folder() -> Path:
    folder = artifact_folder(_WRITTEN)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.sync()  # what was written before must not be waited for now
    return folder


def materializer_over(kind: type[Any], name: str) -> Any:
    """Return a materializer over the store that the environment names."""
    from zenml.artifact_stores.local_artifact_store import (
        LocalArtifactStore,
        LocalArtifactStoreConfig,
    )
    from zenml.enums import StackComponentType
    from zenml.integrations.s3.artifact_stores.s3_artifact_store import S3ArtifactStore
    from zenml.integrations.s3.flavors import S3ArtifactStoreConfig

    root = os.environ[STORE]
    now = datetime.now(UTC)
    in_bucket = root.startswith("s3://")
    store = (S3ArtifactStore if in_bucket else LocalArtifactStore)(
        name="benchmark",
        id=uuid.uuid4(),
        config=(S3ArtifactStoreConfig if in_bucket else LocalArtifactStoreConfig)(path=root),
        flavor="s3" if in_bucket else "local",
        type=StackComponentType.ARTIFACT_STORE,
        user=uuid.uuid4(),
        created=now,
        updated=now,
    )
    return kind(f"{root}/{name}", artifact_store=store)


def _store_both(images: np.ndarray[Any, np.dtype[np.uint8]], dataset: ImageDataset) -> None:
    from zenml.materializers.numpy_materializer import NumpyMaterializer

    from materializers.dataset import ImageDatasetMaterializer

    materializer_over(NumpyMaterializer, "stock").save(images)
    materializer_over(ImageDatasetMaterializer, "ours").save(dataset)


def generate_dataset(megabytes: int) -> ImageDataset:
    """Return random 64x64x3 images that take so many megabytes, with labels and a manifest."""
    n = megabytes * 1_000_000 // (_SIDE * _SIDE * 3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, _SIDE, _SIDE, 3), np.uint8)
    columns = {
        "id": [f"pets/{i % 10}/{i:07d}.jpg" for i in range(n)],
        "label": np.arange(n) % 10,
        "source": [f"/data/pets/{i % 10}/{i:07d}.jpg" for i in range(n)],
        "pixels_sha256": [hashlib.sha256(image.data).hexdigest() for image in images],
        "width": _SIDE,
        "height": _SIDE,
        "mode": "RGB",
        **{name: rng.random(n) for name in ("brightness", "contrast", "sharpness")},
        "official_split": "",
    }
    manifest = pd.DataFrame(columns).astype(MANIFEST_COLUMNS)
    return ImageDataset(images, manifest, tuple("abcdefghij"), "made for a benchmark")


def report(
    name: str, baseline: Callable[[], Any], candidate: Callable[[], Any], pairs: int, **env: str
) -> None:
    """Compare two functions by the seconds and megabytes that they return, and print both."""
    sides = Side(baseline.__name__, baseline, env), Side(candidate.__name__, candidate, env)
    result = compare(name, *sides, pairs=pairs)
    result.save()
    for quantity in ("seconds", "unsynced_seconds"):
        if quantity in result.samples[0][0].values:
            _print_ratio(f"{name} ({quantity})", result, quantity)
    if "MB" in result.samples[0][0].values:
        grown = [Spread.of([s.values["MB"] for s in side]).max for side in result.samples]
        sys.stdout.write(f"  anonymous memory: at most {grown[0]:,.0f} and {grown[1]:,.0f} MB\n")


def _print_ratio(title: str, result: Comparison, quantity: str) -> None:
    slow, fast = ([s.values[quantity] for s in side] for side in result.samples)
    ratio = Spread.of([a / b for a, b in zip(slow, fast, strict=True)])
    sys.stdout.write(
        f"{title}: {result.names[0]} {Spread.of(slow).median:.3f}, {result.names[1]} "
        f"{Spread.of(fast).median:.3f}, ratio {ratio.median:.2f} "
        f"({ratio.min:.2f} to {ratio.max:.2f}, n = {ratio.n})\n"
    )


def main() -> int:
    """Make the dataset, store it twice in both stores, compare and print."""
    megabytes, pairs, words = parse_arguments(megabytes=1000, pairs=6, words=[])
    dataset = generate_dataset(megabytes)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        os.environ |= {FOLDER: directory, STORE: directory}
        for name in ("stock", "ours", "server"):
            (folder / name).mkdir()
        _store_both(dataset.images, dataset)
        report("dataset_artifact_save", np_save, our_save, pairs)
        if "save" in words:
            return 0
        load = stock_load, our_load
        report("dataset_artifact_load", *load, pairs)
        server = S3Server(str(WEED), folder / "server")
        try:
            os.environ |= {**server.environment, STORE: f"s3://{BUCKET}"}
            _store_both(dataset.images, dataset)
            report("dataset_artifact_load_from_s3", *load, max(2, pairs // 2))
        finally:
            server.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
