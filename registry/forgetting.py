"""Erasure of what monitoring stores of images: predictions, labels, and the images themselves."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cv_factory.errors import ConfigError, ImageError
from cv_factory.monitoring.erasure import Criteria, Erasure, erase_from_log, erase_from_store
from cv_factory.serving.inference_engine import decode_input
from cv_factory.serving.logging.image_facts import image_hmac, load_key
from cv_factory.serving.logging.image_folder import remove_images, remove_old_images
from registry import deployments
from registry.label_store import forget_labels
from registry.model_registry import ModelRegistry
from registry.monitoring_store import open_folder
from registry.training_data import forget_training_images


@dataclass(frozen=True)
class Forgotten:
    """What was erased of a model.

    Attributes:
        n_predictions: Number of predictions.
        n_labels: Number of labels, and of choices of images to be labelled.
        n_images: Number of image files that services kept.
        n_training_images: Number of their copies for training.
    """

    n_predictions: int
    n_labels: int
    n_images: int
    n_training_images: int


def hash_image(model_name: str, content: bytes) -> frozenset[str]:
    """Return the HMACs of an encoded image in the prediction logs of a model.

    There is one for each log and each size of the deployed versions' inputs.

    Raises:
        ConfigError: No service of the model logs predictions.
        ImageError: No version takes the image.
    """
    hmacs, problems = set(), []
    for bundle in deployments.load_bundles(model_name):
        if bundle.serving.log.predictions is None:
            continue
        key = load_key(Path(bundle.serving.log.predictions))
        try:
            image = decode_input(content, bundle.predictor.contract, bundle.serving.limits)
            hmacs.add(image_hmac(image.pixels, key))
        except ImageError as error:
            problems.append(error)
    if problems and not hmacs:
        raise problems[0]
    if not hmacs:
        raise ConfigError(
            f"No service of {model_name} on this machine logs predictions, so its images cannot be "
            "recognized. Give the HMAC of the image in place of it."
        )
    return frozenset(hmacs)


def forget(
    registry: ModelRegistry,
    hmacs: Collection[str],
    days: float | None,
    who: str | None,
    why: str,
) -> Forgotten:
    """Erase what is stored of images, or is old; the audit log says how much, and not what.

    Args:
        registry: The model.
        hmacs: Of the images.
        days: Age in days from which predictions, their labels and kept images are erased; None for
            none.
        who: For the audit log; None for the authenticated user.
        why: For the audit log.

    Raises:
        OSError: A log or an image cannot be written or removed.
        OutputError: The store cannot be read or written.
    """
    name = registry.model_name
    before = None if days is None else datetime.now(UTC) - timedelta(days=days)
    criteria, erasure = Criteria(name, frozenset(hmacs), before), Erasure()
    # The logs first: what is compacted meanwhile is in the store then.
    for folder in deployments.log_folders(name):
        erase_from_log(folder, criteria, erasure)
    erase_from_store(open_folder(name, "predictions"), criteria, erasure)
    # An image that was predicted again later stays.
    images = criteria.hmacs | (erasure.hmacs - erasure.other_hmacs)
    forgotten = Forgotten(
        n_predictions=len(erasure.ids),
        n_labels=forget_labels(name, erasure.ids, images),
        n_images=_remove_images(name, images, days),
        n_training_images=forget_training_images(name, images),
    )
    registry.log.record("forgotten", who, why, {**vars(forgotten), "older_than_days": days})
    return forgotten


def _remove_images(model_name: str, hmacs: Collection[str], days: float | None) -> int:
    n = 0
    for folder in deployments.image_folders(model_name):
        if days is not None:
            n += remove_old_images(folder, days)
        n += remove_images(folder, hmacs)
    return n
