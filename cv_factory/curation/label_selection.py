"""What to label next: images that the model is uncertain of, and that are unlike each other.

F. Zhdanov, Diverse mini-batch Active Learning, 2019: of the images with the smallest margins ten
times as many as asked for are clustered by k-means, weighted by their uncertainty, and the image
nearest to the center of each cluster is taken.
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from cv_factory.config.data import DataConfig
from cv_factory.data.sources import open_source
from cv_factory.errors import DataError
from cv_factory.inference.batch import predict_records
from cv_factory.inference.predictor import Predictor
from cv_factory.progress import track

#: Images of small margin among which diverse ones are looked for, for each one that is selected.
_CANDIDATES = 10


@dataclass(frozen=True)
class SelectedImage:
    """An image to label, and what the model takes it for."""

    path: Path
    likely_label: str
    confidence: float
    uncertainty: float


@dataclass(frozen=True)
class LabelSelection:
    """What to label next.

    Attributes:
        images: The most uncertain first.
        n_images: How many were looked at.
        unreadable: Id and reason of files that cannot be read.
    """

    images: tuple[SelectedImage, ...]
    n_images: int
    unreadable: tuple[tuple[str, str], ...]

    def write_csv(self, file: TextIO, folder: Path) -> None:
        """Write a manifest whose labels are to be filled in.

        Args:
            file: The open CSV.
            folder: Where it lies, the images below it: paths are relative to it, as
                ``data.additional`` reads them.
        """
        writer = csv.writer(file)
        writer.writerow(("image_path", "label", "likely", "confidence", "uncertainty"))
        root = folder.resolve()
        for image in self.images:
            path = os.fsdecode(image.path.resolve().relative_to(root))
            figures = (f"{image.confidence:.4f}", f"{image.uncertainty:.4f}")
            writer.writerow((path, "", image.likely_label, *figures))


def rank_folder(predictor: Predictor, folder: Path, n: int) -> LabelSelection:
    """Select what to label next from a folder of images without labels.

    Raises:
        DataError: The folder holds no image that can be read.
    """
    config = DataConfig(source="folder", path=str(folder))
    ids, scores, unreadable = [], [], []
    with open_source(config, labelled=False) as source:
        records = predict_records(source, config, predictor, np.arange(len(source)))
        for scored in track(records, "Scoring images", len(source)):
            if scored.scores is None:
                unreadable.append((scored.record.id, scored.problem))
            else:
                ids.append(scored.record.id)
                scores.append(scored.scores)
    if not scores:
        raise DataError(f"{folder}: no image can be read, such as {': '.join(unreadable[0])}.")
    probabilities = np.stack([score.probabilities for score in scores])
    features = np.stack([score.features for score in scores])
    names, uncertainty = predictor.contract.class_names, compute_uncertainty(probabilities)
    images = tuple(
        SelectedImage(
            folder / ids[i],
            names[int(probabilities[i].argmax())],
            float(probabilities[i].max()),
            float(uncertainty[i]),
        )
        for i in select_for_labeling(probabilities, features, n)
    )
    return LabelSelection(images, len(ids), tuple(unreadable))


def select_for_labeling(
    probabilities: npt.NDArray[np.float32], features: npt.NDArray[np.float32], n: int
) -> npt.NDArray[np.int64]:
    """Return the positions of ``n`` images, the most uncertain first; all if there are fewer.

    Args:
        probabilities: ``(N, C)``.
        features: ``(N, K)``, in which images that look alike are near.
        n: How many to select.
    """
    uncertainty = compute_uncertainty(probabilities)
    order = np.argsort(-uncertainty, kind="stable")
    if len(order) <= n:
        return order
    candidates = order[: _CANDIDATES * n]
    nearest = _cluster(features[candidates], uncertainty[candidates], n)
    is_selected = np.zeros(len(candidates), bool)
    is_selected[nearest] = True
    # Two centers can share their nearest image: the most uncertain ones fill up.
    is_selected[np.flatnonzero(~is_selected)[: n - int(is_selected.sum())]] = True
    return candidates[is_selected]


def compute_uncertainty(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return 1 - (largest - second largest probability), float64 ``(N,)`` from 0 to 1."""
    largest = np.partition(probabilities.astype(np.float64), -2, axis=1)[:, -2:]
    uncertainty: npt.NDArray[np.float64] = 1.0 - (largest[:, 1] - largest[:, 0])
    return uncertainty


def _cluster(
    features: npt.NDArray[np.float32], weights: npt.NDArray[np.float64], n: int
) -> npt.NDArray[np.int64]:
    """Return the position nearest to each center of a weighted k-means."""
    from sklearn.cluster import KMeans

    # A weight of zero would take an image out of the clustering.
    weights = np.maximum(weights, 1e-6)
    clusters = KMeans(n, n_init=1, random_state=0).fit(features, sample_weight=weights)
    nearest: npt.NDArray[np.int64] = clusters.transform(features).argmin(axis=0)
    return nearest
