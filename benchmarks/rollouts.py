"""Rollouts in simulation: how seldom an equal version is rolled back, and how soon a worse one is.

Each number is of ROLLOUTS (default 1,000) simulated rollouts with the seeds 0, 1, …, looked at
after every LOOK_REQUESTS requests with the product's own evidence and decisions
(``cv_factory.monitoring.rollout``, default limits).

- ``identical``: two services of one version; errors .2 %, durations log-normal with a median of
  10 ms; shadow for 2,000 requests, then 1 %, 10 % and 50 %, 6,000 requests each, whatever the
  evidence would have allowed.
- ``errors``: .1 % in production, 1 % of the version, at a share of 10 %. ``fixed`` is what the best
  test with the same rate of false alarms could reach that looks once, after 5,000 requests, and
  knows production's rate.
- ``latency``: three times as slow, at a share of 10 %.
- ``accuracy``: 98 % against 96 % with 3 % disagreements: labelled ones until it is decided;
  and how often versions that are equally accurate are taken for worse, within 300 labels.

Run: python -m benchmarks.rollouts [ROLLOUTS]
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from math import exp, factorial
from typing import Any

import numpy as np

from benchmarks.harness import describe_machine, parse_arguments, save_result
from cv_factory.config.rollout import AccuracyLimits, RolloutConfig
from cv_factory.monitoring.rollout import RolloutState, compare, decide
from cv_factory.monitoring.rollout_accuracy import AccuracyCounts, compare_accuracy
from cv_factory.monitoring.rollout_evidence import RolloutEvidence
from cv_factory.serving.prometheus_metrics import REQUEST_SECONDS_BUCKETS
from cv_factory.serving.service_counters import ServiceCounters

LOOK_REQUESTS = 100
_MEDIAN_S, _SIGMA = 0.010, 0.5
_BEGIN = datetime(2026, 11, 29, tzinfo=UTC)
_CONFIG = RolloutConfig()
#: Requests of each kind of step of ``identical``: share of the version, number of requests.
_IDENTICAL = ((1.0, 2000), (0.01, 6000), (0.1, 6000), (0.5, 6000))
#: Challenger alone right, production alone right, both wrong and different.
_DISAGREEMENTS = (0.0245, 0.0045, 0.001)
_EQUAL = (0.0145, 0.0145, 0.001)


def main() -> None:
    """Simulate, print, store the result."""
    (n,) = parse_arguments(rollouts=1000)
    results: dict[str, Any] = {
        "identical": simulate_identical(n),
        "errors": simulate_errors(n),
        "latency": simulate_latency(n),
        "accuracy": simulate_accuracy(n),
    }
    for name, figures in results.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))
    save_result("rollouts", {"rollouts": n, "results": results, "machine": describe_machine()})


def simulate_identical(n: int) -> dict[str, Any]:
    """Return how many of n rollouts of an equal version are rolled back."""
    rolled_back = 0
    for seed in range(n):
        rng = np.random.default_rng(seed)
        looks = ((share, requests // LOOK_REQUESTS) for share, requests in _IDENTICAL)
        steps = [_counts(rng, share, 0.002, 0.002, 1.0) for share, k in looks for _ in range(k)]
        rolled_back += _first_rollback(iter(steps)) is not None
    return {"rolled_back": rolled_back, "of": n, "looks_each": 200}


def simulate_errors(n: int) -> dict[str, Any]:
    """Return after how many requests a version that fails ten times as often is rolled back."""
    config = RolloutConfig(latency=None)
    found = [
        _first_rollback((_counts(rng, 0.1, 0.01, 0.001, None) for _ in range(1000)), config)
        for rng in map(np.random.default_rng, range(n))
    ]
    requests = np.array([np.inf if look is None else look * LOOK_REQUESTS for look in found])
    both = [
        _first_rollback(_counts(rng, 0.1, 0.01, 0.001, 1.0) for _ in range(50))
        for rng in map(np.random.default_rng, range(n))
    ]
    return {
        "within_5000": round(float((requests <= 5000).mean()), 3),
        "within_5000_with_latency_judged": round(sum(b is not None for b in both) / n, 3),
        "median_requests": float(np.median(requests)),
        "p90_requests": float(np.quantile(requests, 0.9)),
        "p90_requests_of_the_version": float(np.quantile(requests, 0.9)) * 0.1,
        "within_50000": round(float((requests <= 50_000).mean()), 3),
        "fixed": round(_fixed_power(500, 0.001, 0.01, config.false_alarm_rate), 3),
    }


def simulate_latency(n: int) -> dict[str, Any]:
    """Return after how many requests a version that is three times as slow is rolled back."""
    found = [
        _first_rollback(_counts(rng, 0.1, 0.001, 0.001, 3.0) for _ in range(200))
        for rng in map(np.random.default_rng, range(n))
    ]
    requests = np.array([np.inf if look is None else look * LOOK_REQUESTS for look in found])
    return {
        "median_requests": float(np.median(requests)),
        "p90_requests": float(np.quantile(requests, 0.9)),
    }


def simulate_accuracy(n: int) -> dict[str, Any]:
    """Return how many labelled disagreements decide, and how often equals are taken for worse."""
    limits = AccuracyLimits()
    decided = []
    for seed in range(n):
        counts = _disagreements(np.random.default_rng(seed), _DISAGREEMENTS, 300)
        verdicts = (compare_accuracy(c, limits).verdict for c in counts)
        decided.append(
            next((i for i, v in enumerate(verdicts, 1) if v != "not_enough_evidence"), 301)
        )
    worse = [
        any(
            compare_accuracy(c, limits).verdict == "worse"
            for c in _disagreements(np.random.default_rng(n + seed), _EQUAL, 300)
        )
        for seed in range(n)
    ]
    return {
        "median_labels": float(np.median(decided)),
        "p90_labels": float(np.quantile(decided, 0.9)),
        "equal_taken_for_worse": sum(worse),
        "of": n,
    }


def _first_rollback(
    looks: Iterator[tuple[ServiceCounters, ServiceCounters]], config: RolloutConfig = _CONFIG
) -> int | None:
    """Return the number of the look that rolls the version back; None if none does."""
    state = RolloutState(1, 2, "id", config, 0, _BEGIN, _BEGIN)
    evidence = RolloutEvidence(1)
    for number, (version, production) in enumerate(looks, start=1):
        evidence = evidence.observe(version, production, 2.0)
        decision = decide(state, compare(evidence, config), evidence.step_requests, _BEGIN)
        if decision.action == "roll_back":
            return number
    return None


def _counts(
    rng: np.random.Generator,
    share: float,
    error_rate: float,
    production_error_rate: float,
    slowness: float | None,
) -> tuple[ServiceCounters, ServiceCounters]:
    """Return the counts of both arms after LOOK_REQUESTS requests; a share of 1 is a shadow.

    Args:
        rng: Source of chance.
        share: Of the version.
        error_rate: Of the version.
        production_error_rate: Of the other one.
        slowness: Ratio of the durations; None to time nothing.
    """
    own = int(rng.binomial(LOOK_REQUESTS, share))
    other = LOOK_REQUESTS if share == 1.0 else LOOK_REQUESTS - own
    return (
        _arm(rng, own, error_rate, slowness),
        _arm(rng, other, production_error_rate, None if slowness is None else 1.0),
    )


def _arm(
    rng: np.random.Generator, n: int, error_rate: float, slowness: float | None
) -> ServiceCounters:
    errors = int(rng.binomial(n, error_rate))
    if slowness is None:
        return ServiceCounters(n, server_errors=errors, errors=errors)
    seconds = slowness * _MEDIAN_S * np.exp(_SIGMA * rng.standard_normal(n))
    slower = tuple(int((seconds > bound).sum()) for bound in REQUEST_SECONDS_BUCKETS)
    return ServiceCounters(n, slower, errors, n, errors)


def _disagreements(
    rng: np.random.Generator, shares: tuple[float, float, float], n_labels: int
) -> Iterator[AccuracyCounts]:
    """Yield the counts after each labelled disagreement."""
    weights = np.array(shares) / sum(shares)
    kinds = rng.choice(3, size=n_labels, p=weights)
    wins, losses, wrong = (np.cumsum(kinds == kind) for kind in range(3))
    n_pairs = np.cumsum(rng.geometric(sum(shares), n_labels))
    for i in range(n_labels):
        yield AccuracyCounts(int(n_pairs[i]), i + 1, int(wins[i]), int(losses[i]), int(wrong[i]))


def _fixed_power(n: int, rate: float, larger_rate: float, alpha: float) -> float:
    """Return the power of the test of a known rate that counts events once (Poisson)."""
    limit = next(k for k in range(n) if _poisson_tail(n * rate, k) <= alpha)
    return _poisson_tail(n * larger_rate, limit)


def _poisson_tail(mean: float, k: int) -> float:
    return 1.0 - sum(exp(-mean) * mean**i / factorial(i) for i in range(k))


if __name__ == "__main__":
    main()
