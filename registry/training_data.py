"""Images from the field with their labels, as a manifest that a training adds to its images.

Services keep images for a limited time. Those with a label that may train are copied into the store
of monitoring, where they stay until they are forgotten: a predictor's data must be known as long as
the predictor. The same labels give the same manifest, so that a repeated training is cached.
"""

import io
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cv_factory.artifacts.files import fingerprint
from cv_factory.inference.batch_output import OutputFolder
from cv_factory.monitoring.training_data import TrainingLabels, select_training_labels
from registry import deployments
from registry.monitoring_store import load_window, open_folder
from registry.store_files import store_lock

_FOLDER, _IMAGES = "training_data", "images"
_COLUMNS = ["image_path", "label", "split", "label_source", "label_time"]


def find_training_labels(model_name: str, *, blind_only: bool) -> TrainingLabels:
    """Find the labels of a model that may train and whose images are at hand.

    Args:
        model_name: The model.
        blind_only: Whether labels that were given in view of the prediction are left out.

    Raises:
        CVFactoryError: No service of the model logs predictions, or the store cannot be read.
    """
    labels = select_training_labels(load_window(model_name), blind_only=blind_only)
    images = (
        _list_stored(open_folder(model_name, f"{_FOLDER}/{_IMAGES}")).keys()
        | _list_logged_images(model_name).keys()
    )
    has_image = labels.rows["image_hmac"].isin(images)
    return replace(
        labels,
        rows=labels.rows[has_image].reset_index(drop=True),
        n_without_image=int((~has_image).sum()),
    )


def write_training_data(model_name: str, labels: TrainingLabels) -> str:
    """Copy the images of some labels into the store and write their manifest.

    Args:
        model_name: The model.
        labels: As ``find_training_labels`` returned them.

    Returns:
        Path or URL of the manifest, for ``data.additional``.

    Raises:
        OutputError: The store cannot be written.
    """
    folder, images = (
        open_folder(model_name, _FOLDER),
        open_folder(model_name, f"{_FOLDER}/{_IMAGES}"),
    )
    with store_lock(model_name):
        stored, kept = _list_stored(images), _list_logged_images(model_name)
        for hmac in set(labels.rows["image_hmac"]) & kept.keys() - stored.keys():
            with suppress(FileNotFoundError):  # its time was up
                images.write(kept[hmac].name, kept[hmac].read_bytes())
                stored[hmac] = kept[hmac].name
        rows = labels.rows[labels.rows["image_hmac"].isin(stored)]
        paths = [f"{_IMAGES}/{stored[hmac]}" for hmac in rows["image_hmac"]]
        table = rows.assign(image_path=paths)[_COLUMNS]
        name = f"{fingerprint(table.astype(str).to_numpy().tolist())[:16]}.parquet"
        if name not in folder.names():
            folder.write(name, _encode(table))
    return f"{folder.root}/{name}"


def forget_training_images(model_name: str, hmacs: Collection[str]) -> int:
    """Remove images from the store and from every manifest, and return how many there were.

    Versions that were trained on them keep their own dataset.

    Raises:
        OutputError: The store cannot be read or written.
    """
    folder, images = (
        open_folder(model_name, _FOLDER),
        open_folder(model_name, f"{_FOLDER}/{_IMAGES}"),
    )
    with store_lock(model_name):
        names = {name for hmac, name in _list_stored(images).items() if hmac in hmacs}
        for manifest in sorted(folder.names() - {_IMAGES}):
            table = pd.read_parquet(io.BytesIO(folder.read(manifest)))
            is_kept = ~table["image_path"].isin([f"{_IMAGES}/{name}" for name in names])
            if not is_kept.all():
                folder.write(manifest, _encode(table[is_kept]))
        for name in sorted(names):
            images.remove(name)
    return len(names)


def _list_stored(images: OutputFolder) -> dict[str, str]:
    """Return the names of the images in the store, by HMAC."""
    return {name.partition(".")[0]: name for name in images.names()}


def _list_logged_images(model_name: str) -> dict[str, Path]:
    """Return the images that the deployed services keep, by HMAC."""
    folders = deployments.image_folders(model_name)
    return {p.name.partition(".")[0]: p for f in folders if f.is_dir() for p in f.glob("[!.]*")}


def _encode(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()
