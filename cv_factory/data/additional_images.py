"""Images that are added to a dataset after it was divided, such as labelled ones from the field.

They come last, marked in the manifest's column ``origin``, and lie in the part that their source
says, so that the dataset's own images stay in the parts that they were drawn into.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.artifacts.npy_stream import NpyStreamWriter
from cv_factory.data.dataset import ImageDataset, ScratchFile
from cv_factory.data.image_manifest import STRING
from cv_factory.errors import DataError
from cv_factory.reporting.numbers import format_count

#: Column of the manifest that says which images were added; without it, none were.
ORIGIN = "origin"
#: Its values.
ORIGINAL, ADDITIONAL = "original", "additional"
_BATCH = 1024


def append_images(dataset: ImageDataset, additional: ImageDataset) -> ImageDataset:
    """Return a dataset with further images of its classes; pixels that it holds are left out.

    Raises:
        DataError: They have another size, or classes that the dataset does not have.
    """
    if additional.image_shape != dataset.image_shape:
        raise DataError(
            f"{additional.source}: images of {additional.image_shape} cannot be added to images of "
            f"{dataset.image_shape}."
        )
    new_names = [name for name in additional.class_names if name not in dataset.class_names]
    if new_names:
        raise DataError(
            f"{additional.source}: {dataset.source} has no {format_count(len(new_names), 'class')} "
            f"{', '.join(new_names)}. Remove these images, or add some of the class to the source."
        )
    pixels = additional.manifest["pixels_sha256"]
    is_known = pixels.isin(dataset.manifest["pixels_sha256"]) | pixels.duplicated()
    indices = np.flatnonzero(~is_known)
    scratch = ScratchFile("images.npy")
    with NpyStreamWriter(scratch.path, dataset.image_shape, np.uint8) as images:
        for part, selected in ((dataset, np.arange(len(dataset))), (additional, indices)):
            for batch in part.batches(selected, _BATCH):
                images.append(batch)
    notices = [*dataset.notices, *additional.notices]
    if n_known := len(additional) - len(indices):
        notices.append(
            f"{format_count(n_known, 'additional image')} left out: their pixels are in the "
            "dataset already."
        )
    return replace(
        dataset,
        images=np.load(scratch.path, mmap_mode="r", allow_pickle=False),
        manifest=_append_rows(dataset, additional, indices),
        source=f"{dataset.source} and {additional.source}",
        unreadable=(*dataset.unreadable, *additional.unreadable),
        notices=tuple(notices),
        backing=scratch,
    )


def count_original_images(dataset: ImageDataset) -> int:
    """Return how many images were not added; they come first."""
    if ORIGIN not in dataset.manifest.columns:
        return len(dataset)
    return int((dataset.manifest[ORIGIN] == ORIGINAL).sum())


def _append_rows(
    dataset: ImageDataset, additional: ImageDataset, indices: npt.NDArray[np.int64]
) -> pd.DataFrame:
    rows = additional.manifest.iloc[indices].copy()
    numbers = np.array([dataset.class_names.index(name) for name in additional.class_names])
    labels = rows["label"].to_numpy()
    rows["label"] = np.where(labels >= 0, numbers[labels], labels)
    manifest = pd.concat([dataset.manifest, rows], ignore_index=True)
    origins = np.repeat([ORIGINAL, ADDITIONAL], [len(dataset), len(rows)])
    manifest[ORIGIN] = pd.Series(origins, dtype=STRING)
    return manifest
