"""Fine-tuning of a pretrained backbone with a linear head, before heads are fitted on its features.

J. Howard, S. Ruder, Universal Language Model Fine-tuning for Text Classification (ULMFiT), 2018:
the head is fitted first, and lower layers, which are more general, have lower learning rates.
"""

import itertools
import logging
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from cv_factory.config.features import FeaturesConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.errors import TrainingError
from cv_factory.features.backbone import Backbone
from cv_factory.features.backbones import load_backbone
from cv_factory.features.export import export_network
from cv_factory.features.image_features import ImageFeatures
from cv_factory.features.layers import NormalizedBackbone
from cv_factory.features.softmax_regression import SoftmaxRegressionProblem
from cv_factory.models.logistic_regression import LogisticRegressionConfig
from cv_factory.progress import EpochProgress
from cv_factory.training.callbacks import EpochCallback
from cv_factory.training.checkpoint import open_checkpoints
from cv_factory.training.device import (
    deterministic,
    limit_threads,
    resolve_precision,
    select_device,
)
from cv_factory.training.distributed.process_group import ProcessGroup
from cv_factory.training.train import check_classes
from cv_factory.training.trainer import Trainer, selection_key
from cv_factory.training.training_job import TrainingJob, checkpoint_key
from cv_factory.transforms.fitted import fit_transform
from cv_factory.transforms.normalize import Normalization

_log = logging.getLogger(__name__)

#: Groups of the backbone's layers, and what each one's learning rate is divided by beside that of
#: the group above it (the paper's factor).
_GROUPS, _DECAY = 3, 2.6
#: Of the head to begin with: inverse of the L2 penalty for features whose variances add up to 1.
_C = 3.0


class FineTuningNetwork(nn.Module):
    """A backbone behind what the predictor does with images before it, and a linear head."""

    image_scale: torch.Tensor
    image_shift: torch.Tensor

    def __init__(
        self,
        backbone: NormalizedBackbone,
        normalization: Normalization,
        input_size: int,
        head: nn.Linear,
    ) -> None:
        """Join the parts.

        Args:
            backbone: Pretrained.
            normalization: Of the images that the network is given, which is undone.
            input_size: Pixels a side of the backbone's input.
            head: Fitted on the backbone's features.
        """
        super().__init__()
        for name, values in (("scale", normalization.std), ("shift", normalization.mean)):
            pixels = torch.from_numpy(255 * values.astype(np.float32)).reshape(-1, 1, 1)
            self.register_buffer(f"image_{name}", pixels)
        self._size = (input_size, input_size)
        self.backbone, self.head = backbone, head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalized images float ``(N, C, H, W)``, gray or RGB, to logits ``(N, K)``."""
        pixels = images * self.image_scale + self.image_shift
        if pixels.shape[2:] != self._size:
            pixels = interpolate(pixels, self._size, mode="bilinear", antialias=True)
        logits: torch.Tensor = self.head(self.backbone(pixels.expand(-1, 3, -1, -1)))
        return logits

    def train(self, mode: bool = True) -> "FineTuningNetwork":
        """Switch to training; statistics of the backbone's batch normalization stay.

        Those of a few images in a batch would say less than those of the pretraining.
        """
        super().train(mode)
        self.backbone.eval()
        return self

    def parameter_groups(self) -> list[tuple[Iterable[nn.Parameter], float]]:
        """Return parameters with their share of the learning rate, from the head downwards."""
        layers = list(self.backbone.parameters())
        bounds = [len(layers) * group // _GROUPS for group in range(_GROUPS, -1, -1)]
        groups = [
            (layers[low:high], _DECAY**-depth)
            for depth, (high, low) in enumerate(itertools.pairwise(bounds), start=1)
        ]
        return [(self.head.parameters(), 1.0), *groups]


def fine_tune(
    dataset: ImageDataset,
    split: Split,
    features: ImageFeatures,
    config: FeaturesConfig,
    train: TrainConfig,
    on_epoch: EpochCallback = lambda _epoch, _metrics: None,
) -> Backbone:
    """Train a backbone on, and return the epoch with the best validation accuracy.

    The pretrained backbone competes: it is returned as it was where no epoch is better.

    Args:
        dataset: Images and labels.
        split: Of this dataset; its test part is not used.
        features: Of the pretrained backbone.
        config: Epochs and learning rate.
        train: All other settings of the training.
        on_epoch: Called after each epoch.

    Raises:
        TrainingError: A class has no training image, a setting does not fit the machine, the
            weights changed since the features were computed, or the loss is not a number.
        ExportError: The graph's features differ from the trained network's.
    """
    check_classes(dataset, split)
    update = {"epochs": config.fine_tune, "learning_rate": config.fine_tune_learning_rate}
    settings = train.model_copy(update=update).resolve(len(split.train))
    device = select_device(settings)
    job = TrainingJob(
        images=dataset.images,
        labels=dataset.labels,
        train=split.train,
        validation=split.validation,
        reference=dataset.images[:0],
        transform=fit_transform(dataset, split.train, TransformConfig(), features),
        model=LogisticRegressionConfig(),
        config=resolve_precision(settings, device, (features.backbone.input_size,) * 2),
    )
    limit_threads(processes=1)
    with deterministic(job.config.seed, device, compiled=job.config.compile):
        network, before = _build_network(job, features)
        _log.info(
            "Fine-tuning %s on %d images in %s; validation accuracy without: %.2f%%.",
            *(features.backbone.name, len(split.train), job.config.precision),
            100 * before["validation_accuracy"],
        )
        trainer = _train(network, job, dataset, split, device, on_epoch)
    best = trainer.history[trainer.best_epoch - 1]
    if selection_key(best) <= selection_key(before):
        _log.warning("No epoch of fine-tuning is better: the backbone is left as it was.")
        return features.backbone
    return export_network(
        network.backbone.to("cpu", memory_format=torch.contiguous_format),  # type: ignore[call-overload]
        replace(
            features.backbone,
            fine_tuned_epochs=trainer.best_epoch,
            fine_tuned_precision=job.config.precision,
        ),
    )


def _build_network(
    job: TrainingJob, features: ImageFeatures
) -> tuple[FineTuningNetwork, dict[str, float]]:
    """Return the network with a fitted head, and the head's validation accuracy and loss.

    Raises:
        TrainingError: The weights changed since the features were computed.
    """
    backbone = features.backbone
    pretrained = load_backbone(backbone.name, backbone.input_size)
    if pretrained.weights_sha256 != backbone.weights_sha256:
        raise TrainingError(
            f"The features were computed with other weights of {backbone.name}: run the steps "
            "export_backbone and compute_features again, with --no-cache."
        )
    head = _fit_head(features.values[job.train], job.labels[job.train], job.n_classes)
    with torch.inference_mode():
        logits = head(torch.from_numpy(features.values[job.validation]))
        labels = torch.from_numpy(job.labels[job.validation])
        metrics = {
            "validation_accuracy": float((logits.argmax(1) == labels).double().mean()),
            "validation_loss": float(cross_entropy(logits, labels)),
        }
    network = FineTuningNetwork(
        NormalizedBackbone(pretrained.network, pretrained.mean, pretrained.std),
        job.transform.normalization,
        backbone.input_size,
        head,
    )
    return network, metrics


def _fit_head(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], n_classes: int
) -> nn.Linear:
    """Fit a logistic regression, whose penalty follows the features' scale, as a layer."""
    penalty = _C / float(features.var(axis=0, dtype=np.float64).sum())
    fitted = SoftmaxRegressionProblem(features, labels, n_classes).fit(penalty, max_iter=1000)
    head = nn.Linear(features.shape[1], n_classes)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fitted.weights.T))
        head.bias.copy_(torch.from_numpy(fitted.intercepts))
    return head


def _train(
    network: FineTuningNetwork,
    job: TrainingJob,
    dataset: ImageDataset,
    split: Split,
    device: torch.device,
    on_epoch: EpochCallback,
) -> Trainer:
    """Train all layers, and leave the weights of the best epoch in the network."""
    key = checkpoint_key(dataset, split, job, 1, device.type, __name__)
    with (
        open_checkpoints(key, job.config.keep_checkpoints) as checkpoints,
        EpochProgress(job.config.epochs) as progress,
    ):

        def report(epoch: int, metrics: dict[str, float]) -> None:
            progress.finish_epoch(epoch, metrics)
            on_epoch(epoch, metrics)

        trainer = Trainer(network, job, device, ProcessGroup(), checkpoints)
        try:
            trainer.run(report, progress.update_steps)
        except TrainingError as error:
            setting = "features.fine_tune_learning_rate"
            message = str(error).replace("train.learning_rate", setting)
            raise TrainingError(message) from None
    return trainer
