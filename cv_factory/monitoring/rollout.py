"""Decisions of a rollout: what the evidence says of a version, and what follows for its step.

Knows neither how requests are distributed nor where the counters come from. Evidence that is
missing is no pass: a step is held where it does not come in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cv_factory.config.rollout import RolloutConfig, Step
from cv_factory.monitoring.rollout_evidence import RolloutEvidence, slower_buckets
from cv_factory.monitoring.sequential.rate_bounds import rate_bounds
from cv_factory.monitoring.sequential.two_rates import Rate, e_value
from cv_factory.serving.prometheus_metrics import REQUEST_SECONDS_BUCKETS

Verdict = Literal["better", "no_worse", "worse", "not_enough_evidence"]
Action = Literal["wait", "advance", "hold", "roll_back"]
#: Part of ``false_alarm_rate`` that errors may use up; latency, of which there is more, the rest.
_ERRORS_PART = 0.8
#: Probability that a rate is taken for smaller than it is when a step is passed.
_PASS_ERROR_RATE = 0.05


@dataclass(frozen=True)
class RolloutState:
    """An active rollout.

    Attributes:
        entry: Number of the audit entry that began it.
        version: Number of the version.
        service: The model deployer's id of its service.
        config: Steps and limits.
        step_index: Of the present step.
        since: Beginning of the present step.
        begun: Beginning of the rollout.
        hold_reason: Why no next step is taken; None unless it is held.
    """

    entry: int
    version: int
    service: str
    config: RolloutConfig
    step_index: int
    since: datetime
    begun: datetime
    hold_reason: str | None = None

    @property
    def step(self) -> Step:
        """The present step."""
        return self.config.steps[self.step_index]

    @property
    def next_step(self) -> Step:
        """The step that follows; the last one is production, and ends the rollout."""
        return self.config.steps[self.step_index + 1]


@dataclass(frozen=True)
class Comparison:
    """What one measure says of a version, compared with that in production.

    Attributes:
        measure: ``errors``, ``latency`` or ``accuracy``.
        verdict: ``no_worse`` than the limits allow; ``better`` where that is shown.
        summary: One sentence for people, with the figures that decided.
        evidence: E-value that the version is worse.
        threshold: Worse at or above it.
        is_required: Whether a step needs ``better`` or ``no_worse``.
    """

    measure: str
    verdict: Verdict
    summary: str
    evidence: float
    threshold: float
    is_required: bool = True

    @property
    def is_passed(self) -> bool:
        """Whether it lets a step be taken."""
        return self.verdict in ("better", "no_worse")


@dataclass(frozen=True)
class RolloutDecision:
    """What is to be done with a rollout.

    Attributes:
        action: ``advance`` to the next step, ``roll_back``, ``hold`` or ``wait``.
        verdict: On the version, of all measures together.
        reason: For people, the audit log and the alert.
        comparisons: What the measures say.
    """

    action: Action
    verdict: Verdict
    reason: str
    comparisons: tuple[Comparison, ...] = ()


def compare(evidence: RolloutEvidence, config: RolloutConfig) -> tuple[Comparison, ...]:
    """Return what errors and, if it is configured, latency say."""
    errors = _compare_errors(evidence, config)
    return (errors, _compare_latency(evidence, config)) if config.latency else (errors,)


def decide(
    state: RolloutState,
    comparisons: Sequence[Comparison],
    step_requests: int,
    now: datetime,
) -> RolloutDecision:
    """Return what is to be done.

    Args:
        state: The rollout.
        comparisons: Of all measures.
        step_requests: Requests of the version in the present step.
        now: Present time, with its time zone.
    """
    config, measures = state.config, tuple(comparisons)
    verdict = _overall_verdict(measures)
    if verdict == "worse":
        reason = " ".join(c.summary for c in measures if c.verdict == "worse")
        return RolloutDecision("roll_back", verdict, reason, measures)
    if state.hold_reason is not None:
        return RolloutDecision("wait", verdict, f"held: {state.hold_reason}", measures)
    missing = [c.summary for c in measures if c.is_required and not c.is_passed]
    if step_requests < config.min_requests:
        missing.insert(0, f"{step_requests} of {config.min_requests} requests in this step.")
    if not missing:
        reason = " ".join(c.summary for c in measures)
        action: Action = "advance" if config.advance == "automatic" else "wait"
        return RolloutDecision(action, verdict, reason, measures)
    reason = f"not enough evidence: {' '.join(missing)}"
    if now - state.since > timedelta(hours=config.max_hours):
        held = f"{config.max_hours:g} h passed with {reason}"
        return RolloutDecision("hold", "not_enough_evidence", held, measures)
    return RolloutDecision("wait", "not_enough_evidence", reason, measures)


def _overall_verdict(comparisons: Sequence[Comparison]) -> Verdict:
    if any(c.verdict == "worse" for c in comparisons):
        return "worse"
    if not all(c.is_passed for c in comparisons if c.is_required):
        return "not_enough_evidence"
    return "better" if any(c.verdict == "better" for c in comparisons) else "no_worse"


def _compare_errors(evidence: RolloutEvidence, config: RolloutConfig) -> Comparison:
    part = _ERRORS_PART if config.latency else 1.0
    threshold, value = 1.0 / (config.false_alarm_rate * part), e_value(evidence.log_errors)
    own = Rate(evidence.version.requests, evidence.version.errors)
    other = Rate(evidence.production.requests, evidence.production.errors)
    increase = largest_increase(own, other)
    figures = f"{own.events} of {own.n} requests failed, in production {other.events} of {other.n}"
    if value >= threshold:
        summary = f"errors: {figures} (evidence {value:.3g}, limit {threshold:.0f})."
        return Comparison("errors", "worse", summary, value, threshold)
    limit = config.errors.max_increase
    verdict: Verdict = "no_worse" if increase <= limit else "not_enough_evidence"
    summary = f"errors: {figures}; at most {increase:.2%} more, and {limit:.2%} is allowed."
    return Comparison("errors", verdict, summary, value, threshold)


def _compare_latency(evidence: RolloutEvidence, config: RolloutConfig) -> Comparison:
    limits = config.latency
    if limits is None:
        raise ValueError("no limits of latency are configured")
    threshold = 1.0 / (config.false_alarm_rate * (1.0 - _ERRORS_PART))
    own, other, buckets = evidence.version, evidence.production, slower_buckets(limits.max_ratio)
    value = e_value(evidence.log_latency[list(buckets)])
    rates = {
        row: (Rate(own.answered, own.slower[slower]), Rate(other.answered, other.slower[row]))
        for row, slower in buckets.items()
    }
    increases = {row: largest_increase(*pair) for row, pair in rates.items()}
    is_worse = value >= threshold
    by_row = evidence.log_latency.max(axis=1) if is_worse else increases
    row = max(buckets, key=lambda row: by_row[row])
    slow, slow_in_production = rates[row]
    figures = (
        f"{_share(slow)} of {slow.n} requests took longer than "
        f"{REQUEST_SECONDS_BUCKETS[buckets[row]] * 1000:g} ms, in production "
        f"{_share(slow_in_production)} of {slow_in_production.n} longer than "
        f"{REQUEST_SECONDS_BUCKETS[row] * 1000:g} ms"
    )
    if is_worse:
        summary = f"latency: {figures} (evidence {value:.3g}, limit {threshold:.0f})."
        return Comparison("latency", "worse", summary, value, threshold)
    is_passed = increases[row] <= limits.max_increase
    verdict: Verdict = "no_worse" if is_passed else "not_enough_evidence"
    allowed = f"{increases[row]:.0%} more, and {limits.max_increase:.0%} is allowed"
    return Comparison(
        "latency", verdict, f"latency: {figures}; at most {allowed}.", value, threshold
    )


def largest_increase(own: Rate, other: Rate) -> float:
    """Return how much larger a rate may be than another one, by the bounds of both."""
    _, upper = rate_bounds(own.n, own.events, _PASS_ERROR_RATE / 2)
    lower, _ = rate_bounds(other.n, other.events, _PASS_ERROR_RATE / 2)
    return upper - lower


def _share(rate: Rate) -> str:
    return f"{rate.events / rate.n:.1%}" if rate.n else "0"
