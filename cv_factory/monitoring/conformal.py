"""Conformal test martingales: anytime-valid evidence that a stream is no more like its reference.

Under exchangeability of reference and stream the smoothed conformal p-values are independent and
uniform (Vovk, Gammerman and Shafer 2005), whatever the size of the reference, since each value
joins it after its own bet. A bet on them multiplies a capital of 1; that it ever reaches 1 / alpha
has probability alpha at most (Ville), however often one looks. Jumps between bets, after the
simple and composite jumpers of V. Vovk et al., Retrain or not retrain: conformal test martingales
for change-point detection, 2021 (arXiv 2102.10439), find changes that come late.

Written here for all statistics and blocks of values at once: ``crepes`` 0.9.1 takes 50 times as
long for 40 statistics of 10,000 values, time quadratic in the values, and seeds NumPy's globals.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Values between two looks; bets change between blocks alone.
BLOCK = 25
#: Probabilities of a jump to another bet after a round.
_JUMPS = np.array([1e-2, 1e-3])
_SHIFTS = (0.1, 0.25, 0.6)
_SCALES = (0.8, 1.25)
_ODDS = (0.25, 0.5, 0.75, 1.35, 2.0, 3.5)
#: Share of the p-values in a tail, and how much more frequent they are under a bet on it.
_TAIL = 0.1
_TAIL_RATIO = 2.5
#: Part of the capital that bets nothing.
_RESERVE = 0.1
#: Quantiles of a fitting sample that bound the bins of a statistic: the tails in finer steps.
_QUANTILES = np.unique(
    np.concatenate(
        [
            np.linspace(0, 1, 65)[1:-1],
            [1 / 512, 1 / 256, 1 / 128],
            [127 / 128, 255 / 256, 511 / 512],
        ]
    )
)
N_BINS = len(_QUANTILES) + 1

Bins = npt.NDArray[np.int8]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bets:
    """Log-densities of p-values that are bet on, by statistic.

    Attributes:
        coefficients: float64 ``(S, B, 5)`` of the number of values and of four sums: of normal
            scores, their squares, and how many p-values lie in the lower and upper tail; where
            ``steps`` is a number, of how many p-values lie above it, and of three zeros.
        steps: float64 ``(S,)``; NaN for normal scores.
        prior: float64 ``(B,)``, the capital of each bet; the first bets nothing.
    """

    coefficients: Doubles
    steps: Doubles
    prior: Doubles


def build_bets(shares: Doubles) -> Bets:
    """Return bets for S statistics.

    Args:
        shares: float64 ``(S,)``: for a statistic that is 0 or 1 its share of ones, on whose rise or
            fall is bet; NaN for one with many values, on whose mean, spread and tails is bet.
    """
    pairs = [(sign * m, s) for m in _SHIFTS for sign in (-1, 1) for s in _SCALES]
    means, scales = np.array([(0.0, 1.0), *((0.0, s) for s in _SCALES), *pairs]).T
    squares = scales**2
    normal = np.zeros((len(means), 5))
    normal[:, 0] = -np.log(scales) - means**2 / (2 * squares)
    normal[:, 1], normal[:, 2] = means / squares, 0.5 - 0.5 / squares
    tails = np.zeros((2, 5))
    tails[:, 0] = np.log((1 - _TAIL * _TAIL_RATIO) / (1 - _TAIL))
    tails[[0, 1], [3, 4]] = np.log(_TAIL_RATIO) - tails[:, 0]
    numeric = np.concatenate([normal, tails])
    n_bets = len(numeric)
    coefficients = np.tile(numeric, (len(shares), 1, 1))
    is_step = np.isfinite(shares)
    for i in np.flatnonzero(is_step):
        odds = shares[i] / (1 - shares[i]) * np.resize([1.0, *_ODDS], n_bets)
        target = odds / (1 + odds)
        zeros, ones = np.log((1 - target) / (1 - shares[i])), np.log(target / shares[i])
        coefficients[i] = 0.0
        coefficients[i, :, 0], coefficients[i, :, 1] = zeros, ones - zeros
    prior = np.full(n_bets, (1 - _RESERVE) / (n_bets - 1))
    prior[0] = _RESERVE
    return Bets(coefficients, 1 - shares, prior)


def fit_edges(values: npt.NDArray[np.floating[Any]]) -> Doubles:
    """Return bounds of bins ``(N_BINS - 1, S)`` from values ``(N, S)`` of neither part."""
    edges: Doubles = np.quantile(values.astype(np.float64), _QUANTILES, axis=0)
    return edges


def to_bins(values: npt.NDArray[np.floating[Any]], edges: Doubles) -> Bins:
    """Return the bin of each value, int8 ``(N, S)``; -1 for NaN, which is skipped."""
    bins = np.empty(values.shape, np.int8)
    for i, bounds in enumerate(edges.T):
        bins[:, i] = np.searchsorted(bounds, values[:, i].astype(np.float64), side="right")
    bins[np.isnan(values)] = -1
    return bins


class JumpingCapital:
    """Capital of S gamblers who each divide it among bets, and jump between them.

    Half of it jumps often and half seldom: the composite jumper.
    """

    def __init__(self, n_gamblers: int, prior: Doubles) -> None:
        self._prior = prior
        self._parts = np.tile(prior, (n_gamblers, len(_JUMPS), 1))
        self._logs = np.zeros((n_gamblers, len(_JUMPS)))

    def bet(self, gains: Doubles) -> Doubles:
        """Return the logarithm of each capital, float64 ``(S,)``, after a round.

        Args:
            gains: float64 ``(S, B)``, the logarithm of what each bet multiplies its part by.
        """
        highest = gains.max(axis=1, keepdims=True)
        self._parts *= np.exp(gains - highest)[:, None, :]
        total = self._parts.sum(axis=2)
        self._logs += np.log(total) + highest
        jumps = _JUMPS[:, None]
        stays = (1 - jumps) * self._parts / total[:, :, None]
        self._parts = stays + jumps * self._prior
        logs: Doubles = np.logaddexp.reduce(self._logs, axis=1) - np.log(len(_JUMPS))
        return logs


def log_capitals(reference: Bins, stream: Bins, bets: Bets, rng: np.random.Generator) -> Doubles:
    """Return the logarithm of each statistic's capital after each block.

    Args:
        reference: Bins of the reference, int8 ``(M, S)``.
        stream: Bins of the stream in its order, int8 ``(N, S)``.
        bets: For each of the S statistics.
        rng: Breaks ties. With the same seed, the capitals of a longer stream begin with these.

    Returns:
        float64 ``(ceil(N / BLOCK), S)``.
    """
    n_statistics = stream.shape[1]
    columns = np.arange(n_statistics)
    counts = _count(reference, columns)
    capital = JumpingCapital(n_statistics, bets.prior)
    looks = np.empty((-(-len(stream) // BLOCK), n_statistics))
    for i in range(len(looks)):
        block = stream[i * BLOCK : (i + 1) * BLOCK]
        p_values = _p_values(counts, block, rng)
        gains = np.einsum("skt,ts->sk", bets.coefficients, _sums(p_values, block, bets.steps))
        looks[i] = capital.bet(gains)
        counts += _count(block, columns)
    return looks


def _count(bins: Bins, columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count the values of each statistic and bin, int64 ``(S, N_BINS)``."""
    places = (columns * N_BINS + bins)[bins >= 0]
    return np.bincount(places, minlength=len(columns) * N_BINS).reshape(len(columns), N_BINS)


def _p_values(counts: npt.NDArray[np.int64], block: Bins, rng: np.random.Generator) -> Doubles:
    """Return smoothed ranks among all earlier values: small where the value is small."""
    is_value = block >= 0
    earlier = np.tri(len(block), k=-1, dtype=bool)[:, :, None] & is_value[None]
    # BLOCK values at most, so that a byte holds the sum: half the time of a sum of int64.
    less = (earlier & (block[None] < block[:, None])).sum(axis=1, dtype=np.uint8)
    equal = (earlier & (block[None] == block[:, None])).sum(axis=1, dtype=np.uint8)
    columns = np.arange(block.shape[1])
    below = (counts.cumsum(axis=1) - counts)[columns, block]
    ties = counts[columns, block] + equal + 1
    n = counts.sum(axis=1) + earlier.sum(axis=1, dtype=np.uint8) + 1
    uniform = 1.0 - rng.random(block.shape)
    p_values: Doubles = (below + less + uniform * ties) / n
    return p_values


def _sums(p_values: Doubles, block: Bins, steps: Doubles) -> Doubles:
    """Return the number of values and the four sums of ``Bets``, float64 ``(5, S)``."""
    from scipy.special import ndtri

    is_value, is_step = block >= 0, np.isfinite(steps)
    sums = np.zeros((5, block.shape[1]))
    sums[0] = is_value.sum(axis=0)
    sums[1, is_step] = ((p_values > steps) & is_value)[:, is_step].sum(axis=0)
    p_values = np.where(is_value, p_values, 0.5)[:, ~is_step]  # neither a score nor in a tail
    scores = ndtri(np.clip(p_values, 1e-12, 1 - 1e-12))
    sums[1, ~is_step], sums[2, ~is_step] = scores.sum(axis=0), (scores**2).sum(axis=0)
    sums[3, ~is_step] = (p_values < _TAIL).sum(axis=0)
    sums[4, ~is_step] = (p_values > 1 - _TAIL).sum(axis=0)
    return sums
