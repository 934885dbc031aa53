"""Labelled disagreements: which of two models is right more often."""

from math import comb

import pytest

from cv_factory.monitoring.sequential.mcnemar import mcnemar_e_value


@pytest.mark.parametrize("n", [1, 10, 50])
def test_the_expectation_is_one_where_neither_is_better(n: int) -> None:
    expectation = sum(comb(n, w) * 0.5**n * mcnemar_e_value(w, n - w) for w in range(n + 1))
    assert expectation == pytest.approx(1.0)


def test_wins_are_evidence_and_losses_are_not() -> None:
    assert mcnemar_e_value(0, 0) == 1.0
    assert mcnemar_e_value(14, 2) > 50
    assert mcnemar_e_value(2, 14) < 0.01
    assert mcnemar_e_value(10_000, 0) > 1e100
