"""Bounds of a rate that hold at every look."""

import numpy as np
import pytest

from cv_factory.monitoring.sequential.rate_bounds import rate_bounds


def test_nothing_seen_bounds_nothing() -> None:
    assert rate_bounds(0, 0, 0.05) == (0.0, 1.0)


def test_the_bounds_enclose_the_share_and_narrow() -> None:
    widths = []
    for n in (100, 1000, 10_000):
        lower, upper = rate_bounds(n, n // 50, 0.05)
        assert lower < 0.02 < upper
        widths.append(upper - lower)
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("n", "largest"), [(100, 0.06), (500, 0.014), (5000, 0.002)])
def test_no_error_among_many_requests_is_a_small_rate(n: int, largest: float) -> None:
    lower, upper = rate_bounds(n, 0, 0.05)
    assert lower == 0.0
    assert upper < largest


def test_all_events() -> None:
    lower, upper = rate_bounds(50, 50, 0.05)
    assert (lower > 0.5, upper) == (True, 1.0)


@pytest.mark.parametrize("rate", [0.001, 0.03, 0.4])
def test_they_are_seldom_wrong_at_any_of_many_looks(rate: float) -> None:
    rng = np.random.default_rng(0)
    looks = np.arange(20, 2001, 20)
    wrong = 0
    for _ in range(60):
        events = np.cumsum(rng.random(2000) < rate)[looks - 1]
        bounds = [rate_bounds(int(n), int(k), 0.05) for n, k in zip(looks, events, strict=True)]
        wrong += any(not lower <= rate <= upper for lower, upper in bounds)
    assert wrong <= 60 * 0.05 + 3


def test_more_events_than_observations_are_refused() -> None:
    with pytest.raises(ValueError, match="4 events among 3"):
        rate_bounds(3, 4, 0.05)
