"""Shares of classes in the field, estimated from outputs alone."""

from collections.abc import Callable

import numpy as np
import pytest

from cv_factory.monitoring.label_shift import (
    count_shares,
    estimate_shares_by_bbse,
    estimate_shares_by_em,
)
from tests.support.monitoring import calibrated_outputs

METHODS = [estimate_shares_by_em, estimate_shares_by_bbse]


@pytest.mark.parametrize("estimate", METHODS)
def test_shifted_shares_are_found(estimate: Callable[..., np.ndarray]) -> None:
    reference, field = calibrated_outputs(20_000, seed=1), calibrated_outputs(60_000, seed=2)
    rng = np.random.default_rng(0)
    # Images of class 0 are kept, of the others a half: label shift.
    kept = (field.labels == 0) | (rng.random(len(field)) < 0.5)
    expected = count_shares(field.labels[kept], 3)
    assert expected[0] == pytest.approx(0.5, abs=0.01)
    shares = estimate(reference, field.probabilities[kept])
    np.testing.assert_allclose(shares, expected, atol=0.02)
    assert shares.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("estimate", METHODS)
def test_shares_stay_shares_for_one_image_and_an_unseen_class(
    estimate: Callable[..., np.ndarray],
) -> None:
    reference = calibrated_outputs(300)
    widened = np.pad(reference.probabilities, ((0, 0), (0, 1)))
    only_unseen = np.eye(4, dtype=np.float32)[[3, 3]]
    for probabilities in (widened[:1], only_unseen):
        shares = estimate(reference, probabilities)
        assert shares.shape == (4,)
        assert shares[3] == 0.0
        assert (shares >= 0).all()
        assert shares.sum() == pytest.approx(1.0)
