"""Fits a network by gradient descent: one process's view of a training, alone or with others.

What is random in a step is drawn from the seed and the position of the step, never from a stream
that runs on: a training that is continued, or divided among processes, does what it would have
done.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy, softmax
from torch.nn.parallel import DistributedDataParallel

from cv_factory.errors import TrainingError
from cv_factory.training.augment import augment, draw, seed_of
from cv_factory.training.checkpoint import Checkpoint, Checkpoints, Position
from cv_factory.training.device import autocast
from cv_factory.training.distributed.process_group import World, globalize
from cv_factory.training.images import Batch, Images, ResidentImages, StreamedImages, fits
from cv_factory.training.job import TrainingJob
from cv_factory.training.optimization import apply_schedule, build_optimizer, class_weights
from cv_factory.training.state import load_optimizer, load_weights, optimizer_tensors, tensors_of
from cv_factory.training.system_metrics import SystemMetrics
from cv_factory.transforms.normalize import Normalization

#: Called after each epoch with its number, from 1, and its metrics.
EpochCallback = Callable[[int, dict[str, float]], None]
#: Called after each step with the number of finished steps of this epoch, and of all its steps.
StepCallback = Callable[[int, int], None]

_EVALUATION_BATCH = 1024
#: Steps after which it is asked whether a checkpoint is due; all processes ask at the same step.
_STEPS_BETWEEN_LOOKS = 50


class Fit:
    """The state of a training: network, optimizer, position, and the best weights so far."""

    def __init__(
        self,
        network: nn.Module,
        job: TrainingJob,
        device: torch.device,
        world: World,
        checkpoints: Checkpoints | None,
    ) -> None:
        """Put network and images on the device, and continue from the newest checkpoint."""
        self._job, self._config, self._device, self._world = job, job.config, device, world
        if world.size > 1:
            globalize(network)
        layout = torch.channels_last if self._config.channels_last else torch.contiguous_format
        self.network = network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self._averaged = copy.deepcopy(network) if self._config.ema_decay else network
        self._normalize = _Normalize(job.transform.normalization, device, layout)
        self._train, self._validation = self._open_images()
        self._weights = class_weights(job.labels[job.train], job.n_classes, self._config)
        self._class_weights = None if self._weights is None else self._weights.to(device)
        self._steps = len(job.train) // self._config.batch_size
        self._losses = torch.zeros(self._steps, device=device)
        self._optimizer = build_optimizer(network, self._config)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._config.precision == "fp16")
        self._best: dict[str, torch.Tensor] = {}
        self._checkpoints = checkpoints
        self._position = Position()
        self._continue()
        self._parallel = self._parallelized(network)
        model = self._parallel or network
        self._model: nn.Module = torch.compile(model) if self._config.compile else model  # type: ignore[assignment]

    def run(self, on_epoch: EpochCallback, on_step: StepCallback) -> None:
        """Train the epochs that are left, and load the best weights into the network.

        Raises:
            TrainingError: The loss is not a number.
        """
        self._saved = time.monotonic()
        system = SystemMetrics(self._device)
        while not self._is_finished():
            epoch, first = self._position.epoch, self._position.step
            begun = time.perf_counter()
            self._train_epoch(epoch, first, on_step)
            metrics = self._finish_epoch(epoch)
            seconds = time.perf_counter() - begun
            done = (self._steps - first) * self._config.batch_size
            timing = {"seconds": seconds, "images_per_second": done / seconds}
            on_epoch(epoch, metrics | timing | system.take())
            self._save_if_due()
        load_weights(self.network, self._best)

    @property
    def history(self) -> tuple[dict[str, float], ...]:
        """Metrics of each epoch."""
        return self._position.history

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose weights were the best."""
        return self._position.best_epoch

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Score images uint8 ``(n, H, W, C)`` in float32: ``(n, K)``."""
        self.network.eval()
        parts = []
        with torch.inference_mode():
            for batch in torch.split(torch.from_numpy(np.array(images)), _EVALUATION_BATCH):
                logits = self.network(self._normalize(batch.to(self._device)))
                parts.append(softmax(logits.float(), dim=1).cpu())
        scores: npt.NDArray[np.float32] = torch.cat(parts).numpy()
        return scores

    def _open_images(self) -> tuple[Images, Images]:
        job, config = self._job, self._config
        n = len(job.train) + len(job.validation)
        resident = fits(n, job.image_shape, config.crop_padding, config.resident_mb)
        kind = ResidentImages if resident else StreamedImages
        train, validation = (
            kind(job.images, torch.from_numpy(job.labels[part]), part, padding, self._device)
            for part, padding in ((job.train, config.crop_padding), (job.validation, 0))
        )
        return train, validation

    def _parallelized(self, network: nn.Module) -> DistributedDataParallel | None:
        if self._world.size == 1:
            return None
        devices = [self._device.index] if self._device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices, forward_sync_buffers=False)

    def _is_finished(self) -> bool:
        position, patience = self._position, self._config.early_stopping
        finished = len(position.history)
        stalled = patience is not None and finished - position.best_epoch >= patience
        return finished >= self._config.epochs or (finished > 0 and stalled)

    def _train_epoch(self, epoch: int, first: int, on_step: StepCallback) -> None:
        """Take one pass over the shuffled images (the incomplete last batch is left out)."""
        self.network.train()
        size = self._config.batch_size
        generator = torch.Generator().manual_seed(seed_of(self._config.seed, "order", epoch))
        order = torch.randperm(len(self._job.train), generator=generator)
        parts = self._parts()
        positions = (
            order[step * size : (step + 1) * size][part]
            for step in range(first, self._steps)
            for part in parts
        )
        batches = self._train.batches(positions)
        for step in range(first, self._steps):
            self._train_step(epoch, step, order[step * size : (step + 1) * size], parts, batches)
            on_step(step + 1, self._steps)
            if (step + 1) % _STEPS_BETWEEN_LOOKS == 0 and step + 1 < self._steps:
                self._move(step=step + 1)
                self._save_if_due()

    def _parts(self) -> list[slice]:
        """Return which images of a batch are this process's, one part after the other."""
        size, parts = self._config.batch_size, self._config.accumulate
        bounds = [size * i // parts for i in range(parts + 1)]
        return [self._world.part(*pair) for pair in itertools.pairwise(bounds)]

    def _train_step(
        self,
        epoch: int,
        step: int,
        indices: torch.Tensor,
        parts: list[slice],
        batches: Iterator[Batch],
    ) -> None:
        config, done = self._config, (epoch - 1) * self._steps + step
        apply_schedule(self._optimizer, config, done, self._steps * config.epochs)
        # For dropout: what a process draws depends on the step and its rank alone.
        torch.manual_seed(seed_of(config.seed, "model", epoch, step, self._world.rank))
        drawn = draw(config, indices, self._job.image_shape[:2], epoch, step)
        total = torch.zeros((), device=self._device)
        for number, part in enumerate(parts, start=1):
            images, labels = next(batches)
            images = augment(images, drawn.part(part, self._device), config)
            with self._together(number == len(parts)):
                with autocast(self._device, config.precision):
                    logits = self._model(self._normalize(images))
                loss = self._loss(logits.float(), labels, indices)
                # Gradients are averaged over the processes, and are to be summed.
                scaled = self._scaler.scale(loss * self._world.size)
                scaled.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self._losses[step] = total
        self._update()

    def _loss(
        self, logits: torch.Tensor, labels: torch.Tensor, indices: torch.Tensor
    ) -> torch.Tensor:
        """Return this part's share of the mean loss of the whole batch."""
        loss = cross_entropy(
            logits,
            labels,
            weight=self._class_weights,
            label_smoothing=self._config.label_smoothing,
            reduction="sum",
        )
        if self._weights is None:
            return loss / len(indices)
        return loss / float(self._weights[self._train.labels[indices]].sum())

    def _together(self, is_last: bool) -> AbstractContextManager[None]:
        """Sum gradients over the processes after the last part of a batch only."""
        if self._parallel is not None and not is_last:
            return self._parallel.no_sync()
        return nullcontext()

    def _update(self) -> None:
        if self._config.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            parameters = [p for p in self.network.parameters() if p.grad is not None]
            nn.utils.clip_grad_norm_(parameters, self._config.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self._config.ema_decay:
            with torch.no_grad():
                _average(self._averaged, self.network, 1 - self._config.ema_decay)

    def _finish_epoch(self, epoch: int) -> dict[str, float]:
        """Validate, remember the weights if they are the best so far, and go to the next epoch."""
        losses = self._checked_losses(self._steps)
        loss, accuracy = self._validate()
        if not math.isfinite(loss):
            raise TrainingError(
                f"The validation loss is not a number after epoch {epoch}. Lower "
                "train.learning_rate, set train.clip_norm, or use train.precision=fp32."
            )
        metrics = {
            "train_loss": float(losses.mean()),
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "learning_rate": float(self._optimizer.param_groups[0]["lr"]),
        }
        history = self._position.history
        best = self._position.best_epoch
        if best == 0 or _score(metrics) > _score(history[best - 1]):
            best = epoch
            self._best = {k: v.clone() for k, v in self._averaged.state_dict().items()}
        self._losses.zero_()
        self._move(epoch=epoch + 1, step=0, history=(*history, metrics), best_epoch=best)
        return metrics

    @torch.inference_mode()
    def _validate(self) -> tuple[float, float]:
        """Return mean loss and accuracy on the validation images; every process takes a share."""
        self._averaged.eval()
        n = len(self._validation.labels)
        mine = torch.arange(n)[self._world.part(0, n)]
        sums = torch.zeros(2, dtype=torch.float64, device=self._device)
        for images, labels in self._validation.batches(torch.split(mine, _EVALUATION_BATCH)):
            with autocast(self._device, self._config.precision):
                logits = self._averaged(self._normalize(images)).float()
            sums[0] += cross_entropy(logits, labels, reduction="sum")
            sums[1] += (logits.argmax(dim=1) == labels).sum()
        loss, hits = (self._world.sum(sums) / n).tolist()
        return loss, hits

    def _checked_losses(self, steps: int) -> torch.Tensor:
        """Return the losses of this epoch's first steps, summed over the processes.

        Raises:
            TrainingError: One of them is not a number.
        """
        losses = self._world.sum(self._losses[:steps])
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            raise TrainingError(
                f"The training loss is not a number from epoch {self._position.epoch}, batch "
                f"{int(bad[0]) + 1} on. Lower train.learning_rate, set train.clip_norm, or use "
                "train.precision=fp32."
            )
        return losses

    def _move(self, **changes: object) -> None:
        scale = dict(self._scaler.state_dict()) if self._scaler.is_enabled() else None
        fields = {**vars(self._position), "scale": scale, **changes}
        self._position = Position(**fields)

    def _save_if_due(self) -> None:
        """Let the first process write a checkpoint, if enough time has gone by for one."""
        due = time.monotonic() - self._saved >= self._config.checkpoint_seconds
        if self._checkpoints is None or not self._world.agree(due, self._device):
            return
        losses = self._checked_losses(self._position.step)
        if self._world.rank == 0:
            tensors = {
                **tensors_of("network/", self.network.state_dict()),
                **tensors_of("best/", self._best),
                **tensors_of("optimizer/", optimizer_tensors(self._optimizer)),
                **tensors_of("", {"losses": losses}),
            }
            if self._config.ema_decay:
                tensors |= tensors_of("average/", self._averaged.state_dict())
            self._checkpoints.save(Checkpoint(self._position, tensors))
        self._saved = time.monotonic()

    def _continue(self) -> None:
        checkpoint = self._checkpoints.load_first() if self._checkpoints is not None else None
        if checkpoint is None:
            return
        self._position = checkpoint.position
        tensors = {k: torch.from_numpy(v) for k, v in checkpoint.tensors.items()}
        load_weights(self.network, _below("network/", tensors))
        if self._config.ema_decay:
            load_weights(self._averaged, _below("average/", tensors))
        self._best = {k: v.to(self._device) for k, v in _below("best/", tensors).items()}
        load_optimizer(self._optimizer, _below("optimizer/", tensors))
        if self._position.scale:
            self._scaler.load_state_dict(dict(self._position.scale))
        if self._world.rank == 0:  # the others' shares are in its sum
            self._losses[: self._position.step] = tensors["losses"].to(self._device)


class _Normalize:
    """Maps uint8 ``(n, H, W, C)`` to normalized float32 ``(n, C, H, W)`` in the given layout."""

    def __init__(
        self, normalization: Normalization, device: torch.device, layout: torch.memory_format
    ) -> None:
        scale = 1 / (255 * normalization.std.astype(np.float64))
        self._scale = torch.from_numpy(scale.astype(np.float32)).to(device)
        shift = -normalization.mean.astype(np.float64) / normalization.std
        self._shift = torch.from_numpy(shift.astype(np.float32)).to(device)
        self._layout = layout

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        planes = (images.float() * self._scale + self._shift).permute(0, 3, 1, 2)
        return planes.contiguous(memory_format=self._layout)


def _score(metrics: dict[str, float]) -> tuple[float, float]:
    return metrics["validation_accuracy"], -metrics["validation_loss"]


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _average(averaged: nn.Module, network: nn.Module, share: float) -> None:
    """Move the averaged weights by a share of the way to the network's; counts are copied."""
    for old, new in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, share)
        else:
            old.copy_(new)
