"""Confidence sequence of a rate: bounds that hold at all numbers of observations at once.

The likelihood under a mixture of rates, divided by that under one rate, is an e-process against
that rate; the bounds enclose the rates that it does not speak against. Source: Robbins 1970,
*Statistical methods related to the law of the iterated logarithm*, with beta mixtures.
"""

from collections.abc import Callable
from math import exp, inf, lgamma, log

#: Beta distributions that are averaged over: one with an expectation of 1 %, since errors are
#: rare, and an even one.
_MIXTURE = ((0.5, 50.0), (1.0, 1.0))
_N_BISECTIONS = 40


def rate_bounds(n: int, events: int, error_rate: float) -> tuple[float, float]:
    """Return bounds that contain the rate at all times with a probability of ``1 - error_rate``.

    Args:
        n: Number of observations.
        events: Number of events among them.
        error_rate: Probability that a bound is ever wrong.

    Raises:
        ValueError: More events than observations.
    """
    if not 0 <= events <= n:
        raise ValueError(f"{events} events among {n} observations")
    marginals = [_log_beta(a + events, b + n - events) - _log_beta(a, b) for a, b in _MIXTURE]
    largest = max(marginals)
    average = largest + log(sum(exp(m - largest) for m in marginals) / len(_MIXTURE))
    limit = average + log(error_rate)
    mode = events / n if n else 0.0

    def is_excluded(rate: float) -> bool:
        return _log_likelihood(rate, n, events) <= limit

    return _bisect(mode, 0.0, is_excluded), _bisect(mode, 1.0, is_excluded)


def _bisect(inside: float, end: float, is_excluded: Callable[[float], bool]) -> float:
    """Return the bound between a rate that is not excluded and an end of the scale."""
    if not is_excluded(end):
        return end
    outside = end
    for _ in range(_N_BISECTIONS):
        middle = (inside + outside) / 2
        if is_excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _log_likelihood(rate: float, n: int, events: int) -> float:
    if rate in (0.0, 1.0):
        return 0.0 if events == rate * n else -inf
    return events * log(rate) + (n - events) * log(1.0 - rate)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
