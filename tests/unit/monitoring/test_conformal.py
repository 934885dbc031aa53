"""Conformal test martingales: exact p-values, prefixes, evidence, and rare false alarms."""

import numpy as np
import pytest
from scipy.stats import norm

from cv_factory.monitoring import conformal
from cv_factory.monitoring.conformal import (
    BLOCK,
    build_bets,
    fit_edges,
    log_capitals,
    to_bins,
)

NUMBER = np.array([np.nan])


def draw_bins(n: int, seed: int, *, shift: float = 0.0, n_statistics: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    edges = fit_edges(np.random.default_rng(99).normal(size=(2000, 1)))
    values = rng.normal(loc=shift, size=(n, n_statistics))
    return to_bins(values, np.repeat(edges, n_statistics, axis=1))


def test_p_values_are_smoothed_ranks_among_the_reference_and_all_earlier_values() -> None:
    rng = np.random.default_rng(0)
    reference, block = (rng.integers(-1, 4, (n, 2)).astype(np.int8) for n in (7, 5))
    counts = conformal._count(reference, np.arange(2))
    uniform = 1 - np.random.default_rng(3).random(block.shape)
    p_values = conformal._p_values(counts, block, np.random.default_rng(3))
    for s in range(2):
        for i in np.flatnonzero(block[:, s] >= 0):
            bag = np.concatenate([reference[:, s], block[: i + 1, s]])
            bag = bag[bag >= 0]
            less, equal = (bag < block[i, s]).sum(), (bag == block[i, s]).sum()
            assert p_values[i, s] == pytest.approx((less + uniform[i, s] * equal) / len(bag))


@pytest.mark.parametrize("shares", [NUMBER, np.array([0.3])])
def test_bets_are_fair(shares: np.ndarray) -> None:
    bets = build_bets(shares)
    assert bets.prior.sum() == pytest.approx(1)
    scores = np.linspace(-6.9, 6.9, 2761)
    density = norm.pdf(scores) * (scores[1] - scores[0])
    bins = np.zeros((1, 1), np.int8)
    sums = [conformal._sums(norm.cdf([[z]]), bins, bets.steps)[:, 0] for z in scores]
    means = density @ np.exp(np.array(sums) @ bets.coefficients[0].T)
    assert means == pytest.approx(np.ones(len(means)), abs=0.01)


def test_capitals_of_a_longer_stream_begin_with_those_of_a_shorter_one() -> None:
    reference, stream = draw_bins(500, 0, n_statistics=3), draw_bins(1000, 1, n_statistics=3)
    bets = build_bets(np.full(3, np.nan))
    whole = log_capitals(reference, stream, bets, np.random.default_rng(5))
    part = log_capitals(reference, stream[:510], bets, np.random.default_rng(5))
    assert len(part) == 21
    n_full = 510 // BLOCK
    assert part[:n_full] == pytest.approx(whole[:n_full])


def test_a_shift_is_found_whether_it_comes_at_once_or_late() -> None:
    reference, bets = draw_bins(2000, 0), build_bets(NUMBER)
    shifted, same = draw_bins(1000, 1, shift=0.4), draw_bins(5000, 2)
    for stream in (shifted, np.concatenate([same, shifted])):
        assert log_capitals(reference, stream, bets, np.random.default_rng(0)).max() > 10


def test_missing_values_are_no_evidence() -> None:
    bins = np.full((200, 1), -1, np.int8)
    looks = log_capitals(draw_bins(100, 0), bins, build_bets(NUMBER), np.random.default_rng(0))
    assert looks == pytest.approx(np.zeros_like(looks))


def test_streams_like_their_reference_seldom_reach_the_threshold() -> None:
    # 400 streams of 2,000 values against 60 others: four in a hundred would be many times 1 %.
    reference, stream = (draw_bins(n, n, n_statistics=400) for n in (60, 2000))
    bets = build_bets(np.full(400, np.nan))
    looks = log_capitals(reference, stream, bets, np.random.default_rng(0))
    assert (looks.max(axis=0) >= np.log(100)).mean() <= 0.02
