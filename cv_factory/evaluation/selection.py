"""Choice of images to show: spread over all classes, as far as there is room."""

from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def spread_over_classes(labels: Indices, n: int) -> Indices:
    """Return up to n places, as many of one class as of another, evenly spaced in each class.

    Args:
        labels: Classes of the images, int64 ``(N,)``.
        n: How many to choose; of more classes than that, evenly spaced ones are shown.

    Returns:
        Places int64 ``(n,)``, class by class.
    """
    if not len(labels):
        return np.empty(0, np.int64)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    members = [members[i] for i in _evenly_spaced(len(members), n)]
    ranked = [own[_evenly_spaced(len(own), -(-n // len(members)))].tolist() for own in members]
    chosen = np.array(take_in_turn(ranked)[:n], dtype=np.int64)
    return chosen[np.lexsort((chosen, labels[chosen]))]


def take_in_turn(groups: list[list[int]]) -> list[int]:
    """Return the first item of each group, then the second of each, and so on."""
    return [item for row in zip_longest(*groups) for item in row if item is not None]


def _evenly_spaced(n_places: int, n: int) -> Indices:
    return np.linspace(0, n_places - 1, min(n, n_places)).astype(np.int64)
