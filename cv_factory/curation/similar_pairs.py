"""Near duplicates: pairs of images that are close in a backbone's features and in their pixels.

Features alone take two frogs in the same leaves for one picture, pixels alone two gray skies;
together they find copies that were scaled, recompressed, recolored, slightly cropped or mirrored.
Matrix products of blocks: memory is bounded, whatever the number of images.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cv_factory.data.dataset import ImageDataset

#: Least cosine of reduced features, and least correlation of shrunken gray pictures. Of 5,000
#: images of CIFAR-10 19 pairs are as close, all of them variants of one picture by eye; of 200
#: images that were made brighter or mirrored 99 % are found again, recompressed 78 %.
MIN_SIMILARITY, MIN_CORRELATION = 0.75, 0.85
_SIDE = 16
_BLOCK = 2048
#: Candidates of an image in a block, so that images that are all alike stay affordable.
_MAX_CANDIDATES = 16
_BATCH = 1024

_Floats = npt.NDArray[np.float32]
_Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SimilarPairs:
    """Pairs of images that are near duplicates; each pair once, the most similar first.

    Attributes:
        first: int64 ``(P,)``.
        second: int64 ``(P,)``.
        similarity: float32 ``(P,)``, cosine of the features times the pictures' correlation.
    """

    first: _Indices
    second: _Indices
    similarity: _Floats


def find_similar_pairs(
    unit: _Floats, pictures: _Floats, parts: _Indices, groups: _Indices
) -> SimilarPairs:
    """Find of each image the closest near duplicate in its own part and in the other parts.

    Args:
        unit: Features ``(N, K)`` of length 1.
        pictures: From ``shrink_images``.
        parts: Number of each image's part, int64 ``(N,)``.
        groups: Number of each image's leakage group, int64 ``(N,)``: images of one group are no
            pair, since they stay in one part anyway.

    Returns:
        At most 2 N pairs. Of more than 16 candidates of an image in a block, some may be missed.
    """
    n = len(unit)
    best = np.zeros((2, n), np.float32)
    partner = np.full((2, n), -1, np.int64)
    for rows, columns, similarity in _candidates(unit, pictures):
        apart = groups[rows] != groups[columns]
        rows, columns, similarity = rows[apart], columns[apart], similarity[apart]
        kind = (parts[rows] != parts[columns]).astype(np.int64)
        for one, other in ((rows, columns), (columns, rows)):
            # Ascending, so that the best of an image is written last.
            order = np.lexsort((-other, similarity))
            k, i, j, s = kind[order], one[order], other[order], similarity[order]
            better = s > best[k, i]
            best[k[better], i[better]] = s[better]
            partner[k[better], i[better]] = j[better]
    kinds, first = np.nonzero(partner >= 0)
    second, similarity = partner[kinds, first], best[kinds, first]
    pairs = np.sort(np.stack([first, second], axis=1), axis=1)
    _, unique = np.unique(pairs, axis=0, return_index=True)
    order = unique[np.argsort(-similarity[unique], kind="stable")]
    return SimilarPairs(pairs[order, 0], pairs[order, 1], similarity[order])


def shrink_images(dataset: ImageDataset) -> _Floats:
    """Return gray pictures of 16 x 16 of all images, float32 ``(N, 256)``, centered, of length 1.

    A picture of one color becomes zeros: it correlates with nothing.
    """
    height, width, _ = dataset.image_shape
    rows, columns = (_average_matrix(side) for side in (height, width))
    pictures = np.empty((len(dataset), _SIDE * _SIDE), np.float32)
    for start in range(0, len(dataset), _BATCH):
        gray = dataset.images[start : start + _BATCH].mean(axis=3, dtype=np.float32)
        small = (rows @ gray @ columns.T).reshape(len(gray), -1)
        small -= small.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(small, axis=1, keepdims=True)
        # Less than a gray level of contrast is noise.
        pictures[start : start + _BATCH] = np.where(lengths > _SIDE, small / (lengths + 1e-12), 0)
    return pictures


def _average_matrix(side: int) -> _Floats:
    """Return the matrix ``(16, side)`` that averages, or repeats, pixels of a side."""
    edges = np.linspace(0, side, _SIDE + 1)
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(overlap, 0)
    matrix: _Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def _candidates(unit: _Floats, pictures: _Floats) -> Iterator[tuple[_Indices, _Indices, _Floats]]:
    """Yield pairs that are close in features and pixels, block by block, the first one smaller."""
    n = len(unit)
    for top in range(0, n, _BLOCK):
        for left in range(top, n, _BLOCK):
            cosine = unit[top : top + _BLOCK] @ unit[left : left + _BLOCK].T
            if left == top:
                cosine[np.tril_indices(len(cosine))] = -1
            rows, columns = _select_candidates(cosine)
            if not len(rows):
                continue
            cosines = cosine[rows, columns]
            rows, columns = rows + top, columns + left
            correlation = _correlate(pictures, rows, columns)
            close = correlation >= MIN_CORRELATION
            yield rows[close], columns[close], (cosines * correlation)[close]


def _select_candidates(cosine: _Floats) -> tuple[_Indices, _Indices]:
    is_close = cosine >= MIN_SIMILARITY
    if np.count_nonzero(is_close) > _MAX_CANDIDATES * len(cosine):
        width = min(_MAX_CANDIDATES, cosine.shape[1])
        nearest = np.argpartition(-cosine, width - 1, axis=1)[:, :width]
        rows = np.repeat(np.arange(len(cosine)), width)
        columns = nearest.ravel()
        close = is_close[rows, columns]
        return rows[close], columns[close]
    rows, columns = np.nonzero(is_close)
    return rows, columns


def _correlate(pictures: _Floats, rows: _Indices, columns: _Indices) -> _Floats:
    """Return the larger correlation of each pair, as it is and with one mirrored."""
    correlation = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), 16 * _BATCH):
        part = slice(start, start + 16 * _BATCH)
        one, other = pictures[rows[part]], pictures[columns[part]]
        mirrored = other.reshape(-1, _SIDE, _SIDE)[:, :, ::-1].reshape(other.shape)
        correlation[part] = np.maximum((one * other).sum(axis=1), (one * mirrored).sum(axis=1))
    return correlation
