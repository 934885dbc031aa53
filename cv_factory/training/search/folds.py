"""Stratified folds of the training images, as files that all workers of a search read.

Validation and test images are not written, so that no trial can use them.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from cv_factory.config.search import SearchConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split, get_leakage_groups
from cv_factory.errors import TrainingError
from cv_factory.features.image_features import ImageFeatures
from cv_factory.training.search.search_job import SearchJob
from cv_factory.transforms.fitted import FittedTransform, fit_transform

_IMAGES, _FEATURES = "images", "features"


def write_folds(directory: Path, job: SearchJob) -> None:
    """Write the training images, and each fold's split and transform, into a new directory.

    A backbone's features of the images are written beside them. A fold's transform is fitted on the
    fold's training part. Images of one group, and images with equal pixels, are in the same fold.

    Raises:
        TrainingError: A class has fewer images than there are folds.
    """
    dataset, train = job.dataset, job.split.train
    images = ImageDataset(
        images=dataset.images[train],
        manifest=dataset.manifest.iloc[train].reset_index(drop=True),
        class_names=dataset.class_names,
        source=dataset.source,
    )
    (directory / _IMAGES).mkdir(parents=True)
    images.save(directory / _IMAGES)
    features = None if job.features is None else _select(job.features, train, images)
    if features is not None:
        (directory / _FEATURES).mkdir()
        features.save(directory / _FEATURES)
    for number, split in enumerate(_folds(images, job.config)):
        fold = directory / f"fold-{number}"
        for name in ("split", "transform"):
            (fold / name).mkdir(parents=True)
        split.save(fold / "split")
        transform = fit_transform(images, split.train, job.transform, features)
        transform.save(fold / "transform")


@dataclass(frozen=True)
class Folds:
    """What ``write_folds`` wrote; images and features are memory-mapped."""

    dataset: ImageDataset
    features: ImageFeatures | None
    parts: list[tuple[Split, FittedTransform]]


def read_folds(directory: Path) -> Folds:
    """Read images, features, and each fold's split and transform."""
    folds = sorted(directory.glob("fold-*"), key=lambda path: int(path.name.split("-")[1]))
    features = directory / _FEATURES
    return Folds(
        ImageDataset.load(directory / _IMAGES),
        ImageFeatures.load(features) if features.exists() else None,
        [(Split.load(fold / "split"), FittedTransform.load(fold / "transform")) for fold in folds],
    )


def _select(
    features: ImageFeatures, indices: npt.NDArray[np.int64], images: ImageDataset
) -> ImageFeatures:
    """Return the features of some images, which are a dataset of their own."""
    mirrored = features.mirrored
    return replace(
        features,
        dataset_fingerprint=images.content_hash,
        values=features.values[indices],
        mirrored=None if mirrored is None else mirrored[indices],
    )


def _folds(dataset: ImageDataset, config: SearchConfig) -> list[Split]:
    smallest = min(dataset.class_counts, key=lambda name: dataset.class_counts[name])
    if dataset.class_counts[smallest] < config.folds:
        raise TrainingError(
            f"search.folds is {config.folds}, but class {smallest!r} has only "
            f"{dataset.class_counts[smallest]} training images. Lower it, or give more images."
        )
    groups = get_leakage_groups(dataset)
    # Without groups, StratifiedKFold gives exact proportions in a fraction of the time.
    is_ungrouped = len(np.unique(groups)) == len(groups)
    splitter_class = StratifiedKFold if is_ungrouped else StratifiedGroupKFold
    splitter = splitter_class(config.folds, shuffle=True, random_state=config.seed)
    rows = np.zeros(len(dataset))
    parts = splitter.split(rows, dataset.labels, None if is_ungrouped else groups)
    n_used = config.folds if config.validation == "k_fold" else 1
    return [
        Split(
            train=train.astype(np.int64),
            validation=validation.astype(np.int64),
            test=np.empty(0, np.int64),
            seed=config.seed,
            dataset_fingerprint=dataset.fingerprint,
        )
        for (train, validation), _ in zip(parts, range(n_used), strict=False)
    ]
