"""Finds doubtful labels, near duplicates and outliers by a backbone's features.

The labels of the test part judge nothing but themselves: they are neither fitted on nor counted, so
that what is said of the images of the other parts is the same whatever they are.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cv_factory.curation.confident_learning import (
    compute_self_confidence,
    estimate_label_noise,
    find_suspicious_labels,
)
from cv_factory.curation.data_issues import DataIssues
from cv_factory.curation.feature_space import normalize_rows, reduce_features
from cv_factory.curation.out_of_fold import (
    N_FOLDS,
    predict_by_others,
    predict_out_of_fold,
)
from cv_factory.curation.outliers import find_outliers, measure_distances
from cv_factory.curation.similar_pairs import find_similar_pairs, shrink_images
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import SPLIT_NAMES, Split, get_leakage_groups
from cv_factory.data.validation.image_issues import ImageIssue, IssueKind, select_shown
from cv_factory.data.validation.thumbnails import encode_thumbnail
from cv_factory.errors import DataError
from cv_factory.features.image_features import ImageFeatures

_log = logging.getLogger(__name__)

#: Pixels a side: a page shows a hundred of them.
_THUMBNAIL_SIDE = 64
_TOO_FEW = "Nothing was compared: train and validation have {} images with a label."

_Floats = npt.NDArray[np.float32]
_Indices = npt.NDArray[np.int64]


def find_data_issues(dataset: ImageDataset, split: Split, features: ImageFeatures) -> DataIssues:
    """Find what speaks against images and labels.

    Args:
        dataset: Images without a label are looked at, too.
        split: Its parts train and validation are what images are compared with.
        features: Of the dataset's images.

    Raises:
        DataError: The features are of another dataset.
    """
    if len(features) != len(dataset):
        raise DataError(
            f"The features are of {len(features):,} images, and the dataset has {len(dataset):,}: "
            "compute them again."
        )
    images = _Images(dataset, split)
    if len(images.development) < 2:
        return DataIssues((), len(dataset), notices=(_TOO_FEW.format(len(images.development)),))
    reduced = reduce_features(features.values, images.development)
    labels, accuracy, notices = _find_label_issues(images, reduced)
    unit = normalize_rows(reduced)
    issues = (*labels, *_find_near_duplicates(images, unit), *_find_outliers(images, features))
    thumbnails = _encode_thumbnails(dataset, issues)
    data_issues = DataIssues(issues, len(dataset), accuracy, tuple(notices), thumbnails)
    _log.info("Of %s images: %s.", f"{len(dataset):,}", data_issues.summary)
    return data_issues


@dataclass(frozen=True)
class _Images:
    """The images of a dataset, as their issues name them."""

    dataset: ImageDataset
    split: Split

    @cached_property
    def development(self) -> _Indices:
        """Rows of the labelled images of train and validation."""
        rows = np.union1d(self.split.train, self.split.validation)
        return rows[self.dataset.labels[rows] >= 0]

    @cached_property
    def test(self) -> _Indices:
        """Rows of the labelled images of the test part."""
        return self.split.test[self.dataset.labels[self.split.test] >= 0]

    @cached_property
    def parts(self) -> _Indices:
        """Number of each image's part; -1 in none."""
        parts = np.full(len(self.dataset), -1, np.int64)
        for number, (_, rows) in enumerate(self.split.items()):
            parts[rows] = number
        return parts

    @cached_property
    def groups(self) -> _Indices:
        """Number of each image's leakage group."""
        return get_leakage_groups(self.dataset)

    def describe(self, row: int) -> tuple[str, str, str]:
        """Return id, part and label of an image; empty where it has none."""
        number, label = int(self.parts[row]), int(self.dataset.labels[row])
        part = SPLIT_NAMES[number] if number >= 0 else ""
        name = self.dataset.class_names[label] if label >= 0 else ""
        id_ = self.dataset.manifest["id"].iloc[row]
        return (id_ if isinstance(id_, str) else self._source(row)), part, name

    def create_issue(
        self,
        kind: IssueKind,
        row: int,
        score: float,
        *,
        likely: int | None = None,
        other: int | None = None,
    ) -> ImageIssue:
        """Return an issue of the image in a row."""
        id_, part, label = self.describe(row)
        likely_label = "" if likely is None else self.dataset.class_names[likely]
        issue = (kind, row, id_, self._source(row), part, label, round(score, 6), likely_label)
        return ImageIssue(*issue, *(() if other is None else (other, *self.describe(other))))

    def _source(self, row: int) -> str:
        return str(self.dataset.manifest["source"].iloc[row])


def _find_label_issues(
    images: _Images, reduced: _Floats
) -> tuple[list[ImageIssue], float | None, list[str]]:
    """Return the doubtful labels, the out-of-fold accuracy, and what could not be judged."""
    labels, class_names = images.dataset.labels, images.dataset.class_names
    n_groups = _count_groups(images)
    is_judged = n_groups >= N_FOLDS
    notices = [
        f"Labels of the class {name} were not judged: train and validation have {n} different "
        f"images of it, and {N_FOLDS} are needed."
        for name, n in zip(class_names, n_groups.tolist(), strict=True)
        if 0 < n < N_FOLDS
    ]
    rows = images.development[is_judged[labels[images.development]]]
    if is_judged.sum() < 2:
        return [], None, notices
    n_classes = len(class_names)
    assessment = predict_out_of_fold(reduced, labels, images.groups, rows, n_classes)
    noise = estimate_label_noise(assessment.probabilities, labels[rows])
    accuracy = float((assessment.probabilities.argmax(axis=1) == labels[rows]).mean())
    assessments = [assessment]
    test = images.test[is_judged[labels[images.test]]]
    if len(test):
        assessments.append(predict_by_others(reduced, labels, rows, test, n_classes))
    issues = []
    for assessment in assessments:
        given = labels[assessment.indices]
        confidence = compute_self_confidence(assessment.probabilities, given)
        for position in find_suspicious_labels(assessment.probabilities, given, noise):
            row, likely = assessment.indices[position], assessment.probabilities[position].argmax()
            score = float(confidence[position])
            issues.append(images.create_issue("label", int(row), score, likely=int(likely)))
    return sorted(issues, key=lambda issue: issue.score), accuracy, notices


def _count_groups(images: _Images) -> _Indices:
    """Return the number of leakage groups of each class in train and validation, ``(C,)``."""
    rows = images.development
    pairs = np.unique(np.stack([images.dataset.labels[rows], images.groups[rows]]), axis=1)
    counts: _Indices = np.bincount(pairs[0], minlength=len(images.dataset.class_names))
    return counts


def _find_near_duplicates(images: _Images, unit: _Floats) -> Iterator[ImageIssue]:
    """Yield near duplicates, first those in two parts of the split.

    Of a pair with one test image, the issue is of the other: without it, the test stays the same.
    """
    pictures = shrink_images(images.dataset)
    pairs = find_similar_pairs(unit, pictures, images.parts, images.groups)
    is_test = images.parts == SPLIT_NAMES.index("test")
    swapped = is_test[pairs.first] & ~is_test[pairs.second]
    rows = np.where(swapped, pairs.second, pairs.first)
    others = np.where(swapped, pairs.first, pairs.second)
    issues = [
        images.create_issue("near_duplicate", int(row), float(similarity), other=int(other))
        for row, other, similarity in zip(rows, others, pairs.similarity, strict=True)
    ]
    yield from sorted(issues, key=lambda issue: not issue.is_across_parts)


def _find_outliers(images: _Images, features: ImageFeatures) -> Iterator[ImageIssue]:
    distances = measure_distances(features.values, images.development, images.groups)
    for row in find_outliers(distances, images.development):
        yield images.create_issue("outlier", int(row), float(distances[row]))


def _encode_thumbnails(dataset: ImageDataset, issues: Sequence[ImageIssue]) -> dict[str, str]:
    """Return PNGs (base64) of the images that a page shows, by id."""
    shown = select_shown(issues)
    rows = {issue.id: issue.index for issue in shown}
    rows |= {issue.other_id: issue.other_index for issue in shown if issue.other_index >= 0}
    return {
        id_: encode_thumbnail(dataset.images[row], _THUMBNAIL_SIDE) for id_, row in rows.items()
    }
