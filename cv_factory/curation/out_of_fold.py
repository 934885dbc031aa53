"""Out-of-fold probabilities: each label is judged by a model that was fitted without its image."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

#: A class needs as many different images to be judged.
N_FOLDS = 5
#: Inverse strength of the regularization, for features whose total variance is 1.
_C = 5.0

_Floats = npt.NDArray[np.float32]
_Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Assessment:
    """Probabilities ``(N, C)`` of the classes, for the images at ``indices``."""

    indices: _Indices
    probabilities: npt.NDArray[np.float64]


def predict_out_of_fold(
    features: _Floats, labels: _Indices, groups: _Indices, indices: _Indices, n_classes: int
) -> Assessment:
    """Predict each image by a logistic regression that was fitted on the other folds.

    Args:
        features: Of all images, float32 ``(N, K)``.
        labels: Of all images, int64 ``(N,)``.
        groups: Number of each image's leakage group, int64 ``(N,)``: a group is in one fold.
        indices: The images to divide into folds; each has a label.
        n_classes: C.
    """
    folds = _assign_folds(labels[indices], groups[indices])
    probabilities = np.zeros((len(indices), n_classes))
    for fold in np.unique(folds):
        inside = folds == fold
        probabilities[inside] = predict_by_others(
            features, labels, indices[~inside], indices[inside], n_classes
        ).probabilities
    return Assessment(indices, probabilities)


def predict_by_others(
    features: _Floats, labels: _Indices, fitted_on: _Indices, indices: _Indices, n_classes: int
) -> Assessment:
    """Predict images by a logistic regression that is fitted on other images."""
    from sklearn.linear_model import LogisticRegression

    # Threads of BLAS wait for each other in a busy loop, forty times as long as one computes.
    with threadpool_limits(1, user_api="blas"):
        model = LogisticRegression(C=_C, max_iter=200, tol=1e-3)
        model.fit(features[fitted_on], labels[fitted_on])
    probabilities = np.zeros((len(indices), n_classes))
    probabilities[:, model.classes_] = model.predict_proba(features[indices])
    return Assessment(indices, probabilities)


def _assign_folds(labels: _Indices, groups: _Indices) -> _Indices:
    """Deal the groups of each class out to the folds, in a seeded order."""
    unique, first, group_of_image = np.unique(groups, return_index=True, return_inverse=True)
    shuffled = np.random.default_rng(0).permutation(len(unique))
    order = shuffled[np.argsort(labels[first][shuffled], kind="stable")]
    fold_of_group = np.empty(len(unique), np.int64)
    fold_of_group[order] = np.arange(len(unique)) % N_FOLDS
    folds: _Indices = fold_of_group[group_of_image]
    return folds
