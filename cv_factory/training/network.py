"""Trains a network by gradient descent; the same seed and machine give the same weights."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy, softmax

from cv_factory.config import ModelConfig, TrainConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.errors import TrainingError
from cv_factory.models import new_network
from cv_factory.progress import EpochProgress
from cv_factory.training.augment import pad, random_crop, random_flip
from cv_factory.training.train import EpochCallback
from cv_factory.training.trained_model import Reference, TrainedModel
from cv_factory.transforms.fitted import FittedTransform
from cv_factory.transforms.normalize import Normalization

_EVALUATION_BATCH = 1024


def train_network(
    dataset: ImageDataset,
    split: Split,
    transform: FittedTransform,
    model: ModelConfig,
    config: TrainConfig,
    reference: npt.NDArray[np.uint8],
    on_epoch: EpochCallback,
) -> TrainedModel:
    """Train with AdamW on a one-cycle schedule; keep the epoch with the best validation accuracy.

    The schedule is L. N. Smith and N. Topin, Super-Convergence, 2018. Args and errors as for
    ``cv_factory.training.train.train``; ``reference`` is uint8 ``(n, H, W, C)``.
    """
    _check_settings(config, len(split.train), dataset.image_shape)
    with _deterministic(config.seed):
        network = new_network(model, transform)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        fit = _Fit(network, dataset, split, transform.normalization, config)
        progress = EpochProgress(config.epochs)
        for epoch in range(1, config.epochs + 1):
            metrics = fit.run_epoch(epoch)
            progress.show(epoch, metrics)
            on_epoch(epoch, metrics)
        fit.restore_best()
        probabilities = fit.probabilities(torch.from_numpy(reference))
    return TrainedModel(
        config=model,
        image_shape=dataset.image_shape,
        n_classes=len(dataset.class_names),
        weights={k: v.contiguous().numpy() for k, v in network.state_dict().items()},
        graph=b"",
        history=tuple(fit.history),
        best_epoch=fit.best_epoch,
        reference=Reference(reference, probabilities.numpy()),
    )


class _Fit:
    """The state of one training: network, optimizer, schedule, and the best weights so far."""

    def __init__(
        self,
        network: nn.Module,
        dataset: ImageDataset,
        split: Split,
        normalization: Normalization,
        config: TrainConfig,
    ) -> None:
        self._network = network
        self._config = config
        self._normalize = _Normalize(normalization)
        self._train = pad(_tensor(dataset, split.train), config.crop_padding)
        self._train_labels = torch.from_numpy(dataset.labels[split.train])
        self._validation = _tensor(dataset, split.validation)
        self._validation_labels = torch.from_numpy(dataset.labels[split.validation])
        self._generator = torch.Generator().manual_seed(config.seed)
        self._steps = len(split.train) // config.batch_size
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, max_lr=config.learning_rate, total_steps=self._steps * config.epochs
        )
        self._best: dict[str, torch.Tensor] = {}
        self._best_key = (-1.0, 0.0)
        self.best_epoch = 0
        self.history: list[dict[str, float]] = []

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, validate, and remember the weights if they are the best so far."""
        begun = time.perf_counter()
        train_loss = self._train_epoch(epoch)
        loss, accuracy = self._validate()
        if (accuracy, -loss) > self._best_key:
            self._best_key, self.best_epoch = (accuracy, -loss), epoch
            self._best = {k: v.clone() for k, v in self._network.state_dict().items()}
        metrics = {
            "train_loss": train_loss,
            "validation_loss": loss,
            "validation_accuracy": accuracy,
        }
        self.history.append(metrics)
        return metrics | {"seconds": time.perf_counter() - begun}

    def restore_best(self) -> None:
        """Load the weights of the best epoch."""
        self._network.load_state_dict(self._best)

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Score images uint8 ``(N, H, W, C)`` in float32."""
        return softmax(self._logits(images, torch.float32), dim=1)

    def _train_epoch(self, epoch: int) -> float:
        """Take one pass over the shuffled images (the incomplete last batch is left out)."""
        config = self._config
        self._network.train()
        order = torch.randperm(len(self._train), generator=self._generator)
        losses = torch.zeros(self._steps)
        for step in range(self._steps):
            indices = order[step * config.batch_size : (step + 1) * config.batch_size]
            images = random_crop(self._train, indices, config.crop_padding, self._generator)
            if config.horizontal_flip:
                images = random_flip(images, self._generator)
            with self._autocast():
                logits = self._network(self._normalize(images))
            loss = cross_entropy(
                logits.float(), self._train_labels[indices], label_smoothing=config.label_smoothing
            )
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            self._schedule.step()
            losses[step] = loss.detach()
        _check_losses(losses, epoch)
        return float(losses.mean())

    def _validate(self) -> tuple[float, float]:
        dtype = torch.bfloat16 if self._config.precision == "bf16" else torch.float32
        logits = self._logits(self._validation, dtype)
        loss = cross_entropy(logits, self._validation_labels)
        hits = (logits.argmax(dim=1) == self._validation_labels).float()
        return float(loss), float(hits.mean())

    @torch.inference_mode()
    def _logits(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        self._network.eval()
        with self._autocast(dtype):
            batches = [
                self._network(self._normalize(batch)).float()
                for batch in torch.split(images, _EVALUATION_BATCH)
            ]
        return torch.cat(batches)

    def _autocast(self, dtype: torch.dtype | None = None) -> torch.autocast:
        if dtype is None:
            dtype = torch.bfloat16 if self._config.precision == "bf16" else torch.float32
        return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


class _Normalize:
    """Maps uint8 ``(n, H, W, C)`` to normalized float32 ``(n, C, H, W)`` in channels-last order."""

    def __init__(self, normalization: Normalization) -> None:
        scale = 1 / (255 * normalization.std.astype(np.float64))
        self._scale = torch.from_numpy(scale.astype(np.float32))
        shift = -normalization.mean.astype(np.float64) / normalization.std
        self._shift = torch.from_numpy(shift.astype(np.float32))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return (images.float() * self._scale + self._shift).permute(0, 3, 1, 2)


def _tensor(dataset: ImageDataset, indices: npt.NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(dataset.images[indices]))


def _check_settings(config: TrainConfig, n_train: int, image_shape: tuple[int, int, int]) -> None:
    if config.batch_size > n_train:
        raise TrainingError(
            f"train.batch_size is {config.batch_size}, but there are only {n_train} training "
            f"images. Set it to {n_train} or less."
        )
    if config.crop_padding >= min(image_shape[:2]):
        raise TrainingError(
            f"train.crop_padding is {config.crop_padding} pixels, but images are only "
            f"{image_shape[0]}x{image_shape[1]}."
        )


def _check_losses(losses: torch.Tensor, epoch: int) -> None:
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        raise TrainingError(
            f"The training loss is not a number from epoch {epoch}, batch {int(bad[0]) + 1} on. "
            "Lower train.learning_rate, or use train.precision=fp32."
        )


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Seed torch and forbid non-deterministic kernels, then put both back."""
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
