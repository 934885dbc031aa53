"""Folds for cross-validation: leakage groups stay whole, classes keep their shares."""

import numpy as np
import numpy.typing as npt

_Indices = npt.NDArray[np.int64]


def assign_folds(labels: _Indices, groups: _Indices, n_folds: int) -> _Indices:
    """Return the fold of each image, int64 ``(N,)``: the groups of a class, dealt out in turn.

    Args:
        labels: int64 ``(N,)``.
        groups: Leakage group of each image, int64 ``(N,)``, ordered by the label of its first one.
        n_folds: Folds, of which some are empty where groups are fewer.
    """
    unique, first, group_by_image = np.unique(groups, return_index=True, return_inverse=True)
    shuffled = np.random.default_rng(0).permutation(len(unique))
    order = shuffled[np.argsort(labels[first][shuffled], kind="stable")]
    fold_by_group = np.empty(len(unique), np.int64)
    fold_by_group[order] = np.arange(len(unique)) % n_folds
    folds: _Indices = fold_by_group[group_by_image]
    return folds
