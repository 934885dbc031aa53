"""Training of the configured model, with the reference outputs that its export must reproduce."""

import logging

import numpy as np

from cv_factory.config.model import ModelConfig
from cv_factory.config.train import TrainConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split, get_leakage_groups
from cv_factory.errors import TrainingError
from cv_factory.features.image_features import ImageFeatures
from cv_factory.models import is_network
from cv_factory.training.callbacks import EpochCallback
from cv_factory.training.trained_model import TrainedModel
from cv_factory.training.training_job import TrainingJob, select_reference_indices
from cv_factory.transforms.fitted import FittedTransform, check_features

_log = logging.getLogger(__name__)


def train(
    dataset: ImageDataset,
    split: Split,
    transform: FittedTransform,
    model: ModelConfig,
    config: TrainConfig,
    on_epoch: EpochCallback = lambda _epoch, _metrics: None,
    features: ImageFeatures | None = None,
) -> TrainedModel:
    """Train on the training images; choose the epoch on the validation images.

    Args:
        dataset: Images and labels.
        split: Of this dataset; its test part is not used.
        transform: Fitted on the training part.
        model: Section of the model.
        config: Training settings.
        on_epoch: Called after each epoch.
        features: A backbone's features of the images, for a classical model; None: it is fitted on
            the standardized PCA features.

    Raises:
        TrainingError: The artifacts do not belong together, a setting does not fit the data, or
            the loss is not a number.
    """
    _check_lineage(dataset, split, transform)
    if features is not None:
        check_features(features, dataset)
    check_classes(dataset, split)
    _log.info("Preparing to train %s on %s images.", model.name, f"{len(split.train):,}")
    job = TrainingJob(
        images=dataset.images,
        labels=dataset.labels,
        train=split.train,
        validation=split.validation,
        reference=dataset.images[select_reference_indices(split.validation)],
        transform=transform,
        model=model,
        config=config,
    )
    if is_network(model):
        from cv_factory.training.network import train_network

        return train_network(job, dataset, split, on_epoch)
    from cv_factory.training.classical import train_classical

    return train_classical(job, get_leakage_groups(dataset), on_epoch, features)


def _check_lineage(dataset: ImageDataset, split: Split, transform: FittedTransform) -> None:
    if split.dataset_fingerprint != dataset.fingerprint:
        raise TrainingError("The split was made for another dataset: run the split step again.")
    if transform.image_shape != dataset.image_shape:
        raise TrainingError(
            f"The transform was fitted for images {transform.image_shape}, the dataset has "
            f"{dataset.image_shape}: run the fit_transform step again."
        )
    if transform.class_names != dataset.class_names:
        raise TrainingError(
            f"The transform was fitted for the classes {', '.join(transform.class_names)}, the "
            f"dataset has {', '.join(dataset.class_names)}: run the fit_transform step again."
        )


def check_classes(dataset: ImageDataset, split: Split) -> None:
    """Check that every class has training images: the head has an output for each.

    Raises:
        TrainingError: One has none.
    """
    n_classes = len(dataset.class_names)
    counts = np.bincount(dataset.labels[split.train], minlength=n_classes)
    missing = [dataset.class_names[label] for label in np.flatnonzero(counts == 0)]
    if missing:
        raise TrainingError(
            f"The dataset has {n_classes} classes, but no training image is of class "
            f"{', '.join(missing)}. Lower split.validation and split.test, give more images, or "
            "remove the class."
        )
