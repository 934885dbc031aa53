"""Evidence of a larger rate: exact, and so an e-value whatever the common rate is."""

from math import comb

import numpy as np
import pytest

from cv_factory.monitoring.sequential.two_rates import (
    ODDS_RATIOS,
    Rate,
    e_value,
    log_likelihood_ratios,
)


def test_the_ratios_are_those_of_fishers_noncentral_distribution() -> None:
    n_arm, n_other, total = 7, 12, 5
    for k in range(total + 1):
        ratios = np.exp(log_likelihood_ratios(Rate(n_arm, k), Rate(n_other, total - k)))
        weights = [comb(n_arm, i) * comb(n_other, total - i) for i in range(total + 1)]
        for odds, ratio in zip(ODDS_RATIOS, ratios, strict=True):
            tilted = sum(w * odds**i for i, w in enumerate(weights))
            assert ratio == pytest.approx(odds**k * sum(weights) / tilted)


@pytest.mark.parametrize(("arm", "other", "total"), [(5, 50, 3), (50, 5, 20), (10, 10, 20)])
def test_the_expectation_is_one_where_both_rates_are_equal(
    arm: int, other: int, total: int
) -> None:
    ks = range(max(0, total - other), min(arm, total) + 1)
    weights = np.array([comb(arm, k) * comb(other, total - k) for k in ks], float)
    ratios = [np.exp(log_likelihood_ratios(Rate(arm, k), Rate(other, total - k))) for k in ks]
    expectation = (weights / weights.sum()) @ np.array(ratios)
    np.testing.assert_allclose(expectation, 1.0)


def test_nothing_to_compare_is_no_evidence() -> None:
    for arm, other in [((0, 0), (9, 3)), ((9, 3), (0, 0)), ((9, 0), (90, 0)), ((9, 9), (5, 5))]:
        assert not log_likelihood_ratios(Rate(*arm), Rate(*other)).any()


def test_more_events_in_the_arm_are_evidence_and_fewer_are_none() -> None:
    assert e_value(log_likelihood_ratios(Rate(500, 10), Rate(4500, 4))) > 1e4
    assert e_value(log_likelihood_ratios(Rate(500, 0), Rate(4500, 14))) < 0.7


def test_millions_of_events_stay_finite() -> None:
    ratios = log_likelihood_ratios(Rate(1_000_000, 600_000), Rate(1_000_000, 300_000))
    assert np.isfinite(ratios).all()
    assert e_value(ratios) > 1e100


def test_more_events_than_observations_are_refused() -> None:
    with pytest.raises(ValueError, match="events among observations"):
        log_likelihood_ratios(Rate(3, 4), Rate(9, 1))
