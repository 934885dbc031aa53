"""Finds images that look alike in different parts of a split, by their perceptual hashes."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

#: How many neighbours in sorted order each hash is compared with, so that a million images that
#: are all alike (blank pages) stay affordable.
_NEIGHBORS = 64


def has_cross_split_near_duplicate(
    hashes: npt.NDArray[np.uint64], parts: npt.NDArray[np.int64], distance: int
) -> npt.NDArray[np.bool_]:
    """Say of each image whether one of another part differs in at most ``distance`` bits.

    Two hashes that differ in d bits are equal in at least one of d + 1 bands of their bits, so
    only images that are equal in a band are compared.

    Args:
        hashes: Perceptual hashes uint64 ``(N,)``.
        parts: Number of each image's part, int64 ``(N,)``.
        distance: Bits that may differ, 0 to 15.

    Returns:
        bool ``(N,)``. Of more than 64 images that are equal in a band, some pairs may be missed.
    """
    of_hash, unique_hashes = pd.factorize(hashes)
    n_parts = int(parts.max(initial=0)) + 1
    pair_by_image, pairs = pd.factorize(of_hash * n_parts + parts)
    is_near = np.zeros(len(pairs), dtype=bool)
    bits, part = unique_hashes[pairs // n_parts], pairs % n_parts
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in pairwise(edges):
        mask = np.uint64((1 << int(high - low)) - 1)
        band = (bits >> np.uint64(low)) & mask
        order = np.lexsort((bits, band))
        _compare_neighbors(band[order], bits[order], part[order], order, distance, is_near)
    result: npt.NDArray[np.bool_] = is_near[pair_by_image]
    return result


def _compare_neighbors(
    band: npt.NDArray[np.uint64],
    bits: npt.NDArray[np.uint64],
    part: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    distance: int,
    is_near: npt.NDArray[np.bool_],
) -> None:
    """Mark in ``is_near`` what is near in another part; arrays are sorted by band."""
    start = np.arange(len(band))
    for offset in range(1, _NEIGHBORS + 1):
        start = start[start + offset < len(band)]
        start = start[band[start] == band[start + offset]]
        if not len(start):
            return
        other = start + offset
        near = np.bitwise_count(bits[start] ^ bits[other]) <= distance
        hit = near & (part[start] != part[other])
        is_near[order[start[hit]]] = True
        is_near[order[other[hit]]] = True
