"""Peak memory of training on a memory-mapped dataset, of SMALL, 3 and 9 times as many images.

The images are noise of 64x64x3 in a file (SMALL: default 10,000, 123 MB), the network is tiny, the
budget for resident images is 0: all are streamed. 6,144 of them are for validation at every size,
which fill the queue of prefetched batches of 1,024; with fewer, memory grows until it is full.
Reported is the peak of anonymous memory, above what the process has before; pages of the mapped
file are the kernel's to give away. Labels and order take 16 bytes an image, which is in the
figures.
The slope of a line through the three peaks is to be at most 2 % of the bytes that images add.
Run: python -m benchmarks.training_memory [SMALL [RUNS]] (3 runs of each size: 5 minutes)
"""

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.anonymous_memory import PeakMemory
from benchmarks.harness import (
    Side,
    Spread,
    describe_machine,
    parse_arguments,
    run_once,
    save_result,
)

_COUNT = "BENCHMARK_IMAGES"
_SHAPE, _VALIDATION = (64, 64, 3), 6144
TARGET = 0.02


def train_streamed() -> dict[str, float]:
    """Train one epoch on images of a file; return megabytes and seconds."""
    import torch._dynamo

    from cv_factory.config.train import TrainConfig
    from cv_factory.models.small_cnn import SmallCNNConfig
    from cv_factory.training.distributed.process_group import ProcessGroup
    from cv_factory.training.network import fit_network
    from cv_factory.training.training_job import TrainingJob
    from cv_factory.transforms.fitted import FittedTransform

    n = int(os.environ[_COUNT])
    with tempfile.TemporaryDirectory() as folder:
        images = _images(Path(folder) / "images.npy", n)
        labels = np.arange(n) % 2
        job = TrainingJob(
            images=images,
            labels=labels,
            train=np.arange(_VALIDATION, n),
            validation=np.arange(_VALIDATION),
            reference=np.array(images[:256]),
            transform=FittedTransform.load(Path(os.environ["BENCHMARK_TRANSFORM"])),
            model=SmallCNNConfig(channels=[4, 4]),
            config=TrainConfig(
                epochs=1, batch_size=256, resident_mb=0, precision="fp32", device="cpu"
            ),
        )
        start = time.perf_counter()
        with PeakMemory() as memory:
            fit_network(
                job, torch.device("cpu"), ProcessGroup(), None, lambda *_: None, lambda *_: None
            )
        seconds = time.perf_counter() - start
    return {"images": n, "peak_MB": memory.growth / 1e6, "seconds": seconds}


def _images(file: Path, n: int) -> "np.memmap[tuple[int, ...], np.dtype[np.uint8]]":
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(n, *_SHAPE))
    block = np.random.default_rng(0).integers(0, 256, (1000, *_SHAPE), dtype=np.uint8)
    for start in range(0, n, len(block)):
        images[start : start + len(block)] = block[: n - start]
    images.flush()
    del images
    mapped = np.load(file, mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    return mapped


def _save_transform(folder: Path) -> None:
    """Fit the transform on a few images of noise: the same one for both sizes."""
    import pandas as pd

    from cv_factory.config.transform import PCAConfig, TransformConfig
    from cv_factory.data.dataset import ImageDataset
    from cv_factory.transforms.fitted import fit_transform

    images = np.random.default_rng(0).integers(0, 256, (64, *_SHAPE), dtype=np.uint8)
    dataset = ImageDataset(images, pd.DataFrame(), ("a", "b"), "noise")
    config = TransformConfig(pca=PCAConfig(n_components=4))
    fit_transform(dataset, np.arange(64), config).save(folder)


def main() -> int:
    """Train on each size in processes of their own; print and store the figures; 1 if it grows."""
    small, repetitions = parse_arguments(small=10_000, runs=3)
    runs, slopes = [], []
    with tempfile.TemporaryDirectory() as folder:
        _save_transform(Path(folder))
        for _ in range(repetitions):
            peaks = []
            for n in (small, 3 * small, 9 * small):
                env = {_COUNT: str(n), "BENCHMARK_TRANSFORM": folder}
                runs.append(run_once(Side(f"{n} images", train_streamed, env=env), 900).values)
                print(json.dumps(runs[-1]))
                peaks.append((n * np.prod(_SHAPE) / 1e6, runs[-1]["peak_MB"]))
            sizes, megabytes = zip(*peaks, strict=True)
            slopes.append(float(np.polyfit(np.array(sizes), np.array(megabytes), deg=1)[0]))
    slope = Spread.of(slopes)
    print(
        f"Memory grows by {slope.median:.2%} ({slope.min:.2%} to {slope.max:.2%}, n={slope.n}) of "
        f"the bytes that images add; target {TARGET:.0%}"
    )
    content = {"runs": runs, "slope": asdict(slope), "machine": describe_machine()}
    save_result("training_memory", content)
    return int(slope.median > TARGET)


if __name__ == "__main__":
    sys.exit(main())
