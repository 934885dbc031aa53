"""Out-of-fold probabilities: each label is judged by a model that was fitted without its image."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cv_factory.data.folds import assign_folds
from cv_factory.features.softmax_regression import ROUGH_TOLERANCE, SoftmaxRegressionProblem

#: A class needs as many different images to be judged.
N_FOLDS = 5
#: Inverse strength of the regularization, for features whose total variance is 1.
_C = 5.0
_MAX_STEPS = 200

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
    folds = assign_folds(labels[indices], groups[indices], N_FOLDS)
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
    problem = SoftmaxRegressionProblem(features[fitted_on], labels[fitted_on], n_classes)
    model = problem.fit(_C, _MAX_STEPS, ROUGH_TOLERANCE)
    return Assessment(indices, model.predict_proba(features[indices]))
