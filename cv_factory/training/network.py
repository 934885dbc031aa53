"""Training of a network on all devices: one process, or several through the rank launcher."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace

import torch

from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.errors import TrainingError
from cv_factory.models import new_network
from cv_factory.progress import EpochProgress
from cv_factory.training.callbacks import EpochCallback, StepCallback
from cv_factory.training.checkpoint import Checkpoints, has_checkpoints, open_checkpoints
from cv_factory.training.device import (
    count_processes,
    describe_device,
    deterministic,
    limit_threads,
    resolve_precision,
    select_device,
)
from cv_factory.training.distributed.cluster_environment import detect_nodes
from cv_factory.training.distributed.process_group import ProcessGroup
from cv_factory.training.distributed.rank_launcher import train_distributed
from cv_factory.training.network_limits import find_problems
from cv_factory.training.stability import describe_instability
from cv_factory.training.trained_model import Reference, TrainedModel
from cv_factory.training.trainer import Trainer
from cv_factory.training.training_job import TrainingJob, checkpoint_key

_log = logging.getLogger(__name__)


def train_network(
    job: TrainingJob, dataset: ImageDataset, split: Split, on_epoch: EpochCallback
) -> TrainedModel:
    """Train on every device of the machine; keep the epoch with the best validation accuracy.

    Args and errors as for ``cv_factory.training.train.train``; data and split identify checkpoints.
    """
    device = select_device(job.config)
    processes, nodes = count_processes(job.config, device), detect_nodes(os.environ)
    if nodes.rank:
        raise TrainingError(
            f"This is machine {nodes.rank} of {nodes.count}, counted from 0. The step runs on "
            "machine 0 alone; run python -m cv_factory.training.distributed.node_agent here."
        )
    problems = find_problems(job.config, len(job.train), job.image_shape, processes * nodes.count)
    if problems:
        raise TrainingError("\n".join(problems))
    limit_threads(processes=1)

    def get_key(job: TrainingJob) -> str:
        return checkpoint_key(dataset, split, job, processes * nodes.count, device.type)

    job = _resolve_precision(job, device, get_key)
    config = job.config
    with open_checkpoints(get_key(job), config.keep_checkpoints) as checkpoints:
        _log.info(
            "Training on %s in %s, in batches of %d of %d images.",
            *(describe_device(device, processes, nodes.count), config.precision),
            *(job.batch_size, len(job.train)),
        )
        with EpochProgress(config.epochs) as progress:

            def report(epoch: int, metrics: dict[str, float]) -> None:
                progress.finish_epoch(epoch, metrics)
                on_epoch(epoch, metrics)

            if processes == nodes.count == 1:
                trained = fit_network(
                    job, device, ProcessGroup(), checkpoints, report, progress.update_steps
                )
            else:
                trained = train_distributed(job, device.type, processes, nodes, checkpoints, report)
    if warning := describe_instability(trained.history):
        _log.warning(warning)
    return trained


def _resolve_precision(
    job: TrainingJob, device: torch.device, get_key: Callable[[TrainingJob], str]
) -> TrainingJob:
    """Return the job with what the device computes fast in place of the precision auto.

    A training that began in fp32, on another processor, continues so: fp32 is slow nowhere.
    """
    config = resolve_precision(job.config, device, job.image_shape[:2])
    resolved = replace(job, config=config)
    if config.precision not in (job.config.precision, "fp32"):
        in_fp32 = replace(job, config=config.model_copy(update={"precision": "fp32"}))
        if has_checkpoints(get_key(in_fp32)):
            return in_fp32
    return resolved


def fit_network(
    job: TrainingJob,
    device: torch.device,
    group: ProcessGroup,
    checkpoints: Checkpoints | None,
    on_epoch: EpochCallback,
    on_step: StepCallback,
) -> TrainedModel:
    """Train in this process, as one of its group.

    Args:
        job: Data, model and settings, with the precision chosen.
        device: Of this process.
        group: Rank of this process, and number of all.
        checkpoints: To write to and resume from; None for no checkpoints.
        on_epoch: Called after each epoch.
        on_step: Called after each step.

    Raises:
        TrainingError: The loss is not a number.
    """
    with deterministic(job.config.seed, device, compiled=job.config.compile):
        network = new_network(job.model, job.transform)
        trainer = Trainer(network, job, device, group, checkpoints)
        trainer.run(on_epoch, on_step)
        probabilities = trainer.predict_proba(job.reference)
    return TrainedModel(
        config=job.model,
        image_shape=job.image_shape,
        n_classes=job.n_classes,
        weights={k: v.cpu().contiguous().numpy() for k, v in network.state_dict().items()},
        graph=b"",
        history=trainer.history,
        best_epoch=trainer.best_epoch,
        reference=Reference(job.reference, probabilities),
        precision=job.config.precision,
    )
