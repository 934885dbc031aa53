"""Epochs of ``small_cnn`` against a plain PyTorch loop of the same network, quiet and not.

1,950 images of noise, 32x32x3, and 300 for validation; both sides crop at random and use AdamW and
batches of 64. The plain loop has its images as float tensors in memory behind a DataLoader, fp32
and PyTorch's defaults. Ours runs as configured by default, and in fp32, since ``precision: auto``
is bf16 where the processor has it. Each run is a process of its own; its figure is the median of
its epochs after the first. "Beside a loop": a Python process that never waits is started, too. The
threads of the plain loop wait by spinning, as is PyTorch's default; a fourth side is the plain loop
whose threads sleep as ours do.
Run: python -m benchmarks.training_epochs [PAIRS [EPOCHS]] (3 pairs of 3 epochs: 15 minutes)
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from benchmarks.harness import (
    Side,
    Spread,
    describe_machine,
    parse_arguments,
    run_once,
    save_result,
)

_SIDE, _CHANNELS, _TRAIN, _VALIDATION, _CLASSES, _BATCH = 32, 3, 1950, 300, 10, 64
_EPOCHS = "BENCHMARK_EPOCHS"
#: Plain loop / ours, by default.
TARGET = 1.5


def _images() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    shape = (_TRAIN + _VALIDATION, _SIDE, _SIDE, _CHANNELS)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def ours(precision: str = "auto") -> list[float]:
    """Train as the pipeline does; return the seconds of each epoch."""
    from cv_factory.cpu import limit_spinning

    limit_spinning()  # as ``run.py`` does
    import pandas as pd

    from cv_factory.config.train import TrainConfig
    from cv_factory.config.transform import PCAConfig, TransformConfig
    from cv_factory.data.dataset import ImageDataset
    from cv_factory.data.split import Split
    from cv_factory.models.small_cnn import SmallCNNConfig
    from cv_factory.training.train import train
    from cv_factory.transforms.fitted import fit_transform

    images = _images()
    names = tuple(str(n) for n in range(_CLASSES))
    ids = [str(n) for n in range(len(images))]
    labels = np.arange(len(images)) % _CLASSES
    manifest = pd.DataFrame({"id": ids, "pixels_sha256": ids, "label": labels})
    dataset = ImageDataset(images, manifest, names, "noise")
    parts = np.arange(_TRAIN), np.arange(_TRAIN, len(images)), np.arange(0)
    split = Split(*parts, seed=0, dataset_fingerprint=dataset.fingerprint)
    pca = TransformConfig(pca=PCAConfig(n_components=8))
    transform = fit_transform(dataset, split.train, pca)
    config = TrainConfig.model_validate(
        {"epochs": int(os.environ[_EPOCHS]), "batch_size": _BATCH, "precision": precision}
    )
    seconds: list[float] = []
    train(
        *(dataset, split, transform, SmallCNNConfig(), config),
        on_epoch=lambda _epoch, metrics: seconds.append(metrics["seconds"]),
    )
    return seconds


def ours_fp32() -> list[float]:
    """Train as ``ours``, in fp32."""
    return ours("fp32")


def plain() -> list[float]:
    """Train as PyTorch's tutorials do; return the seconds of each epoch."""
    from types import SimpleNamespace
    from typing import Any, cast

    import torch
    from torch.utils.data import DataLoader, TensorDataset
    from torchvision.transforms import RandomCrop

    from cv_factory.models.small_cnn import SmallCNNConfig, build

    shape = SimpleNamespace(image_shape=(_SIDE, _SIDE, _CHANNELS), class_names=range(_CLASSES))
    network = build(SmallCNNConfig(), cast(Any, shape))
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    pixels = torch.from_numpy(_images()).permute(0, 3, 1, 2).float().contiguous() / 255
    labels = torch.arange(len(pixels)) % _CLASSES
    training = TensorDataset(pixels[:_TRAIN], labels[:_TRAIN])
    batches = DataLoader(training, batch_size=_BATCH, shuffle=True, drop_last=True)
    crop, seconds = RandomCrop(_SIDE, padding=2), []
    for _ in range(int(os.environ[_EPOCHS])):
        start = time.perf_counter()
        network.train()
        for images, targets in batches:
            optimizer.zero_grad()
            outputs = network(crop(images))
            loss = torch.nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        network.eval()
        with torch.no_grad():
            network(pixels[_TRAIN:]).argmax(dim=1)
        seconds.append(time.perf_counter() - start)
    return seconds


def plain_sleeping() -> list[float]:
    """Train as ``plain``, with threads that wait for each other as ours do."""
    from cv_factory.cpu import limit_spinning

    limit_spinning()
    return plain()


@contextlib.contextmanager
def _busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> int:
    """Run all sides PAIRS times, quiet and busy; 1 if a median ratio misses the target."""
    pairs, epochs = parse_arguments(pairs=3, epochs=3)
    sides = {
        "plain": plain,
        "ours": ours,
        "ours, fp32": ours_fp32,
        "plain, sleeping threads": plain_sleeping,
    }
    content: dict[str, object] = {"epochs": epochs, "machine": describe_machine()}
    missed = False
    for condition, beside in (("quiet", contextlib.nullcontext), ("beside a loop", _busy_process)):
        medians: dict[str, list[float]] = {name: [] for name in sides}
        with beside():
            for pair in range(pairs):
                # In turn from either end, since the machine may slow down meanwhile.
                for name in list(sides)[:: 1 if pair % 2 == 0 else -1]:
                    side = Side(name, sides[name], env={_EPOCHS: str(epochs)})
                    values = run_once(side, timeout=600).values
                    medians[name].append(statistics.median(values[1:]))
        ratios = {
            name: Spread.of([a / b for a, b in zip(medians["plain"], medians[name], strict=True)])
            for name in list(sides)[1:]
        }
        missed |= ratios["ours"].median < TARGET
        for name, ratio in ratios.items():
            print(
                f"{condition}, {name}: {statistics.median(medians[name]):.2f} s an epoch, plain "
                f"{statistics.median(medians['plain']):.2f} s; ratio {ratio.median:.2f} "
                f"({ratio.min:.2f} to {ratio.max:.2f}), n={pairs}, target {TARGET}"
            )
        spreads = {name: asdict(ratio) for name, ratio in ratios.items()}
        content[condition] = {"epoch_seconds": medians, "ratio": spreads}
    save_result("training_epochs", content)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
