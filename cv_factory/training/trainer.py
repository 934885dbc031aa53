"""Trainer of a network by gradient descent, for one process of one or more.

Every random number of a step is derived from the seed and the step's position, never from a running
stream, so that a training that is resumed, or divided among processes, gives the same result.
"""

import copy
import itertools
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy, softmax
from torch.nn.parallel import DistributedDataParallel

from cv_factory.errors import TrainingError
from cv_factory.training.augment import augment, derive_seed, sample_augmentation
from cv_factory.training.batches import (
    Batch,
    BatchSource,
    ResidentImages,
    StreamedImages,
    fits_in_memory,
)
from cv_factory.training.callbacks import EpochCallback, StepCallback
from cv_factory.training.checkpoint import Checkpoint, Checkpoints, Position
from cv_factory.training.class_weights import class_weights
from cv_factory.training.device import autocast, seed_layers
from cv_factory.training.distributed.process_group import ProcessGroup, convert_sync_batchnorm
from cv_factory.training.optimization import apply_schedule, build_optimizer
from cv_factory.training.state_dicts import (
    load_optimizer,
    load_weights,
    optimizer_tensors,
    to_arrays,
)
from cv_factory.training.system_metrics import SystemMetrics
from cv_factory.training.training_job import TrainingJob
from cv_factory.transforms.normalize import Normalization

#: Images are scored this many times as many at once as they are trained on: no gradients are kept.
_EVALUATION_BATCHES, _MAX_EVALUATION_BATCH = 4, 1024
#: Steps between two checks for a due checkpoint; all processes check at the same step.
_CHECKPOINT_CHECK_STEPS = 50


class Trainer:
    """Trains a network: holds optimizer, position, and the best weights so far."""

    def __init__(
        self,
        network: nn.Module,
        job: TrainingJob,
        device: torch.device,
        group: ProcessGroup,
        checkpoints: Checkpoints | None,
    ) -> None:
        """Move network and images to the device and restore the selected checkpoint."""
        self._job, self._config, self._device, self._group = job, job.config, device, group
        if group.size > 1:
            convert_sync_batchnorm(network)
        layout = torch.channels_last if self._config.channels_last else torch.contiguous_format
        self.network = network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self._ema_network = copy.deepcopy(network) if self._config.ema_decay else network
        self._normalize = _Normalize(job.transform.normalization, device, layout)
        self._train, self._validation = self._open_images()
        weights = class_weights(job.labels[job.train], job.n_classes, self._config)
        self._class_weights_cpu = None if weights is None else torch.from_numpy(weights)
        self._class_weights = None if weights is None else torch.from_numpy(weights).to(device)
        self._steps = len(job.train) // job.batch_size
        self._evaluation_batch = min(
            _EVALUATION_BATCHES * max(1, job.batch_size // self._config.accumulate // group.size),
            _MAX_EVALUATION_BATCH,
        )
        self._losses = torch.zeros(self._steps, device=device)
        self._optimizer = build_optimizer(network, self._config)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._config.precision == "fp16")
        self._best_weights: dict[str, torch.Tensor] = {}
        self._checkpoints = checkpoints
        self._position = Position()
        self._restore_checkpoint()
        self._ddp = self._wrap_ddp(network)
        model = self._ddp or network
        self._model: nn.Module = torch.compile(model) if self._config.compile else model  # type: ignore[assignment]

    def run(self, on_epoch: EpochCallback, on_step: StepCallback) -> None:
        """Train the remaining epochs, then load the best weights into the network.

        Raises:
            TrainingError: The loss is not a number.
        """
        self._last_save = time.monotonic()
        system = SystemMetrics(self._device)
        while not self._is_finished():
            epoch, first = self._position.epoch, self._position.step
            start = time.perf_counter()
            self._train_epoch(epoch, first, on_step)
            metrics = self._finish_epoch(epoch)
            seconds = time.perf_counter() - start
            done = (self._steps - first) * self._job.batch_size
            timing = {"seconds": seconds, "images_per_second": done / seconds}
            on_epoch(epoch, metrics | timing | system.measure())
            self._save_if_due()
        load_weights(self.network, self._best_weights)

    @property
    def history(self) -> tuple[dict[str, float], ...]:
        """Metrics of each epoch."""
        return self._position.history

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose weights were the best."""
        return self._position.best_epoch

    def predict_proba(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return probabilities float32 ``(n, K)`` of images uint8 ``(n, H, W, C)``."""
        self.network.eval()
        parts = []
        with torch.inference_mode():
            for batch in torch.split(torch.from_numpy(np.array(images)), self._evaluation_batch):
                logits = self.network(self._normalize(batch.to(self._device)))
                parts.append(softmax(logits.float(), dim=1).cpu())
        scores: npt.NDArray[np.float32] = torch.cat(parts).numpy()
        return scores

    def _open_images(self) -> tuple[BatchSource, BatchSource]:
        job, config = self._job, self._config
        n = len(job.train) + len(job.validation)
        resident = fits_in_memory(n, job.image_shape, config.crop_padding, config.resident_mb)
        source_class = ResidentImages if resident else StreamedImages
        train, validation = (
            source_class(
                job.images, torch.from_numpy(job.labels[part]), part, padding, self._device
            )
            for part, padding in ((job.train, config.crop_padding), (job.validation, 0))
        )
        return train, validation

    def _wrap_ddp(self, network: nn.Module) -> DistributedDataParallel | None:
        if self._group.size == 1:
            return None
        devices = [self._device.index] if self._device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices, forward_sync_buffers=False)

    def _is_finished(self) -> bool:
        position, patience = self._position, self._config.early_stopping
        finished = len(position.history)
        stalled = patience is not None and finished - position.best_epoch >= patience
        return finished >= self._config.epochs or (finished > 0 and stalled)

    def _train_epoch(self, epoch: int, first: int, on_step: StepCallback) -> None:
        """Train on the shuffled images from step ``first`` on; an incomplete batch is dropped."""
        self.network.train()
        size = self._job.batch_size
        generator = torch.Generator().manual_seed(derive_seed(self._config.seed, "order", epoch))
        order = torch.randperm(len(self._job.train), generator=generator)
        parts = self._batch_slices()
        positions = (
            order[step * size : (step + 1) * size][part]
            for step in range(first, self._steps)
            for part in parts
        )
        batches = self._train.batches(positions)
        for step in range(first, self._steps):
            self._train_step(epoch, step, order[step * size : (step + 1) * size], parts, batches)
            on_step(step + 1, self._steps)
            if (step + 1) % _CHECKPOINT_CHECK_STEPS == 0 and step + 1 < self._steps:
                self._update_position(step=step + 1)
                self._save_if_due()

    def _batch_slices(self) -> list[slice]:
        """Return this process's slice of each of the ``accumulate`` parts of a batch."""
        size, parts = self._job.batch_size, self._config.accumulate
        bounds = [size * i // parts for i in range(parts + 1)]
        return [self._group.shard(*pair) for pair in itertools.pairwise(bounds)]

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
        # For dropout: its random numbers depend on step and rank alone.
        seed_layers(derive_seed(config.seed, "model", epoch, step, self._group.rank), self._device)
        params = sample_augmentation(config, indices, self._job.image_shape[:2], epoch, step)
        total = torch.zeros((), device=self._device)
        for number, part in enumerate(parts, start=1):
            images, labels = next(batches)
            images = augment(images, params.select(part, self._device), config)
            with self._grad_sync_context(number == len(parts)):
                with autocast(self._device, config.precision):
                    logits = self._model(self._normalize(images))
                loss = self._compute_loss(logits.float(), labels, indices)
                # DDP averages gradients over the processes, but each loss is a part of the sum.
                scaled = self._scaler.scale(loss * self._group.size)
                scaled.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self._losses[step] = total
        self._optimizer_step()

    def _compute_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, indices: torch.Tensor
    ) -> torch.Tensor:
        """Return the summed loss of these images over the size (or weight) of the whole batch."""
        loss = cross_entropy(
            logits,
            labels,
            weight=self._class_weights,
            label_smoothing=self._config.label_smoothing,
            reduction="sum",
        )
        if self._class_weights_cpu is None:
            return loss / len(indices)
        return loss / float(self._class_weights_cpu[self._train.labels[indices]].sum())

    def _grad_sync_context(self, is_last: bool) -> AbstractContextManager[None]:
        """Return a context that synchronizes gradients after the last part of a batch only."""
        if self._ddp is not None and not is_last:
            return self._ddp.no_sync()
        return nullcontext()

    def _optimizer_step(self) -> None:
        if self._config.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            parameters = [p for p in self.network.parameters() if p.grad is not None]
            nn.utils.clip_grad_norm_(parameters, self._config.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self._config.ema_decay:
            with torch.no_grad():
                _update_ema(self._ema_network, self.network, 1 - self._config.ema_decay)

    def _finish_epoch(self, epoch: int) -> dict[str, float]:
        """Validate, store the weights if they are the best, and advance to the next epoch."""
        losses = self._reduce_losses(self._steps)
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
        if best == 0 or selection_key(metrics) > selection_key(history[best - 1]):
            best = epoch
            self._best_weights = {k: v.clone() for k, v in self._ema_network.state_dict().items()}
        self._losses.zero_()
        self._update_position(epoch=epoch + 1, step=0, history=(*history, metrics), best_epoch=best)
        return metrics

    @torch.inference_mode()
    def _validate(self) -> tuple[float, float]:
        """Return mean loss and accuracy on the validation images, over all processes."""
        self._ema_network.eval()
        n = len(self._validation.labels)
        shard = torch.arange(n)[self._group.shard(0, n)]
        sums = torch.zeros(2, dtype=torch.float64, device=self._device)
        for images, labels in self._validation.batches(torch.split(shard, self._evaluation_batch)):
            with autocast(self._device, self._config.precision):
                logits = self._ema_network(self._normalize(images)).float()
            sums[0] += cross_entropy(logits, labels, reduction="sum")
            sums[1] += (logits.argmax(dim=1) == labels).sum()
        loss, hits = (self._group.all_reduce(sums) / n).tolist()
        return loss, hits

    def _reduce_losses(self, steps: int) -> torch.Tensor:
        """Return the losses of this epoch's first steps, summed over the processes.

        Raises:
            TrainingError: One of them is not a number.
        """
        losses = self._group.all_reduce(self._losses[:steps])
        invalid = (~losses.isfinite()).nonzero()
        if len(invalid):
            raise TrainingError(
                f"The training loss is not a number from epoch {self._position.epoch}, batch "
                f"{int(invalid[0]) + 1} on. Lower train.learning_rate, set train.clip_norm, or use "
                "train.precision=fp32."
            )
        return losses

    def _update_position(self, **changes: object) -> None:
        scale = dict(self._scaler.state_dict()) if self._scaler.is_enabled() else None
        fields = {**vars(self._position), "scale": scale, **changes}
        self._position = Position(**fields)

    def _save_if_due(self) -> None:
        """Write a checkpoint (rank 0) if ``train.checkpoint_seconds`` passed since the last."""
        due = time.monotonic() - self._last_save >= self._config.checkpoint_seconds
        if self._checkpoints is None or not self._group.broadcast_flag(due, self._device):
            return
        losses = self._reduce_losses(self._position.step)
        if self._group.rank == 0:
            tensors = {
                **to_arrays("network/", self.network.state_dict()),
                **to_arrays("best/", self._best_weights),
                **to_arrays("optimizer/", optimizer_tensors(self._optimizer)),
                **to_arrays("", {"losses": losses}),
            }
            if self._config.ema_decay:
                tensors |= to_arrays("average/", self._ema_network.state_dict())
            self._checkpoints.save(Checkpoint(self._position, tensors))
        self._last_save = time.monotonic()

    def _restore_checkpoint(self) -> None:
        checkpoint = self._checkpoints.load_selected() if self._checkpoints is not None else None
        if checkpoint is None:
            return
        self._position = checkpoint.position
        tensors = {k: torch.from_numpy(v) for k, v in checkpoint.tensors.items()}
        load_weights(self.network, _strip_prefix("network/", tensors))
        if self._config.ema_decay:
            load_weights(self._ema_network, _strip_prefix("average/", tensors))
        self._best_weights = {
            k: v.to(self._device) for k, v in _strip_prefix("best/", tensors).items()
        }
        load_optimizer(self._optimizer, _strip_prefix("optimizer/", tensors))
        if self._position.scale:
            self._scaler.load_state_dict(dict(self._position.scale))
        if self._group.rank == 0:  # its sum holds the losses of all
            self._losses[: self._position.step] = tensors["losses"].to(self._device)


class _Normalize:
    """Normalization of uint8 ``(n, H, W, C)`` to float32 ``(n, C, H, W)`` in a memory layout."""

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


def selection_key(metrics: dict[str, float]) -> tuple[float, float]:
    """Return what the best epoch has most of: validation accuracy, then the lowest loss."""
    return metrics["validation_accuracy"], -metrics["validation_loss"]


def _strip_prefix(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _update_ema(ema: nn.Module, network: nn.Module, weight: float) -> None:
    """Move the averaged weights towards the network's by ``weight``; integer buffers are copied."""
    for old, new in zip(ema.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, weight)
        else:
            old.copy_(new)
