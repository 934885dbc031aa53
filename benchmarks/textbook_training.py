"""Fashion-MNIST as torchvision's tutorials train it: one side of ``benchmarks/training_speed.py``.

A PIL dataset behind a DataLoader with a worker for each CPU, transforms image by image, fp32, Adam
at a constant rate, the test images scored after every epoch. Prints one JSON object: seconds and
test accuracy of each epoch, or, with a number of steps, the seconds of one epoch as these steps
(and as many batches of the test images) tell them.

    python benchmarks/textbook_training.py resnet18|same_cnn EPOCHS [STEPS]
"""

import gzip
import json
import os
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FashionMNIST
from torchvision.models import resnet18

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "training_fashion_mnist.yaml"
_PACKAGED = Path("/usr/share/datasets/fashion-mnist")
_BATCH = 128
#: Steps that are not timed: workers start, memory is allocated.
_WARMUP = 5


def unpacked(directory: Path) -> Path:
    """Unpack Debian's files (dataset-fashion-mnist) as torchvision wants them; return its root."""
    raw = directory / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in _PACKAGED.glob("*.gz"):
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    return directory


def loaders(root: Path) -> tuple[DataLoader[object], DataLoader[object]]:
    """Return batches of training and of test images."""
    normalize = [transforms.ToTensor(), transforms.Normalize((0.286,), (0.353,))]
    augment = [transforms.RandomCrop(28, padding=2), transforms.RandomHorizontalFlip()]
    workers = len(os.sched_getaffinity(0))
    train = FashionMNIST(root, train=True, transform=transforms.Compose([*augment, *normalize]))
    test = FashionMNIST(root, train=False, transform=transforms.Compose(normalize))
    return (
        DataLoader(train, batch_size=_BATCH, shuffle=True, num_workers=workers),
        DataLoader(test, batch_size=_BATCH, num_workers=workers),
    )


def network(name: str) -> nn.Module:
    """Build ResNet18 for small grey images (nothing shrinks before its blocks), or our CNN."""
    if name == "resnet18":
        model: nn.Module = resnet18(num_classes=10)
        model.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
        return model
    return our_network()


def our_network() -> nn.Module:
    """Build the network of our configuration; no layer of it is set or frozen beforehand."""
    import numpy as np

    from cv_factory.config.loader import load_config
    from cv_factory.config.training import TrainingPipelineConfig
    from cv_factory.models.whitened_cnn import WhitenedCNNConfig, build
    from cv_factory.transforms.patches import PatchPCA

    config = load_config(TrainingPipelineConfig, _CONFIG)
    assert isinstance(config.model, WhitenedCNNConfig), "the textbook knows no other"
    size, components = config.transform.patches.size, config.transform.patches.n_components or 16
    zeros = np.zeros((components, size**2), np.float32)
    unfitted = PatchPCA(size, zeros[0], zeros, np.zeros(components))
    transform = SimpleNamespace(patches=unfitted, image_shape=(28, 28, 1), class_names=range(10))
    return build(config.model, cast(Any, transform)).requires_grad_(True)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: DataLoader[object],
    steps: int | None,
) -> tuple[float, int]:
    """Train an epoch, or so many steps after a warm-up; return seconds and steps."""
    model.train()
    start, counted = time.perf_counter(), 0
    limit = None if steps is None else steps + _WARMUP
    for number, (images, labels) in enumerate(islice(batches, limit)):
        if steps is not None and number == _WARMUP:
            start, counted = time.perf_counter(), 0
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        counted += 1
    return time.perf_counter() - start, counted


@torch.no_grad()
def score(model: nn.Module, batches: DataLoader[object], limit: int | None) -> tuple[float, float]:
    """Return the accuracy on test images and the seconds that all of them take."""
    model.eval()
    start, hits, total, number = time.perf_counter(), 0, 0, 0
    for images, labels in islice(batches, limit):
        hits += int((model(images).argmax(dim=1) == labels).sum())
        total += len(labels)
        number += 1
    return hits / total, (time.perf_counter() - start) * len(batches) / number


def main() -> None:
    """Train as the command line says."""
    name, epochs = sys.argv[1], int(sys.argv[2])
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else None
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        train, test = loaders(unpacked(Path(directory)))
        model, rows = network(name), []
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(epochs):
            seconds, counted = train_epoch(model, optimizer, train, steps)
            accuracy, scoring = score(model, test, steps)
            rows.append({"seconds": seconds * len(train) / counted + scoring, "accuracy": accuracy})
    print(json.dumps({"epochs": rows, "measured_steps": steps}))


if __name__ == "__main__":
    main()
