"""Peak memory of training on a memory-mapped dataset, of SMALL and of ten times as many images.

The images are noise of 64x64x3 in a file (SMALL: default 20,000, 246 MB), the network is tiny, the
budget for resident images is 0: all are streamed. Reported is the peak of anonymous memory, above
what the process has before; pages of the mapped file are the kernel's to give away. Labels and
order take 16 bytes an image, which is in the figures.
Run: python -m benchmarks.training_memory [SMALL]
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.anonymous_memory import PeakMemory
from benchmarks.harness import Side, describe_machine, parse_arguments, run_once, save_result

_COUNT = "BENCHMARK_IMAGES"
_SHAPE = (64, 64, 3)


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
        held_out = n // 20
        job = TrainingJob(
            images=images,
            labels=labels,
            train=np.arange(held_out, n),
            validation=np.arange(held_out),
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
    """Train on both sizes, each in a process of its own; print and store the figures."""
    (small,) = parse_arguments(count=20_000)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        _save_transform(Path(folder))
        for n in (small, 10 * small):
            env = {_COUNT: str(n), "BENCHMARK_TRANSFORM": folder}
            side = Side(f"{n} images", train_streamed, env=env)
            runs.append(run_once(side, timeout=900).values)
            print(json.dumps(runs[-1]))
    more = runs[1]["peak_MB"] - runs[0]["peak_MB"]
    further = 9 * small * np.prod(_SHAPE) / 1e6
    print(f"10 x the images: {more:+.0f} MB, where the further images are {further:,.0f} MB (n=1)")
    save_result("training_memory", {"runs": runs, "machine": describe_machine()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
