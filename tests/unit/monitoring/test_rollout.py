"""What follows from the evidence of a rollout, and evidence that a restart does not falsify."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from cv_factory.config.deployment import DeploymentPipelineConfig
from cv_factory.config.rollout import RolloutConfig
from cv_factory.errors import ArtifactError, ConfigError
from cv_factory.monitoring.rollout import Comparison, RolloutState, Verdict, compare, decide
from cv_factory.monitoring.rollout_evidence import RolloutEvidence, slower_buckets
from cv_factory.serving.prometheus_metrics import REQUEST_SECONDS_BUCKETS, ServiceMetrics
from cv_factory.serving.service_counters import ServiceCounters, parse_counters

BEGIN = datetime(2026, 11, 29, tzinfo=UTC)
CONFIG = RolloutConfig()


def counters(n: int, errors: int = 0, seconds: float = 0.02) -> ServiceCounters:
    slower = tuple(n if seconds > bound else 0 for bound in REQUEST_SECONDS_BUCKETS)
    return ServiceCounters(n, slower, errors, n, errors)


def state(config: RolloutConfig = CONFIG, hold_reason: str | None = None) -> RolloutState:
    return RolloutState(7, 2, "id", config, 1, BEGIN, BEGIN, hold_reason)


def comparison(verdict: Verdict, *, is_required: bool = True) -> Comparison:
    return Comparison("errors", verdict, f"errors: {verdict}.", 1.0, 100.0, is_required)


def verdicts(evidence: RolloutEvidence, config: RolloutConfig = CONFIG) -> dict[str, Verdict]:
    return {c.measure: c.verdict for c in compare(evidence, config)}


def test_alike_versions_pass_with_enough_requests_and_not_before() -> None:
    evidence = RolloutEvidence(7)
    assert set(verdicts(evidence).values()) == {"not_enough_evidence"}
    few = evidence.observe(counters(20), counters(4000), 2.0)
    assert set(verdicts(few).values()) == {"not_enough_evidence"}
    many = evidence.observe(counters(1000), counters(9000), 2.0)
    assert set(verdicts(many).values()) == {"no_worse"}


def test_errors_of_the_version_alone_are_worse_and_those_of_both_are_not() -> None:
    evidence = RolloutEvidence(7)
    for _ in range(5):
        evidence = evidence.observe(counters(100, 5), counters(900, 1), 2.0)
    assert verdicts(evidence)["errors"] == "worse"
    outage = RolloutEvidence(7).observe(counters(100, 50), counters(900, 450), 2.0)
    assert verdicts(outage)["errors"] == "not_enough_evidence"


def test_a_slow_version_is_worse_and_one_stall_is_not() -> None:
    evidence = RolloutEvidence(7).observe(counters(500, seconds=0.4), counters(500), 2.0)
    assert verdicts(evidence)["latency"] == "not_enough_evidence"
    for _ in range(6):
        evidence = evidence.observe(counters(100, seconds=0.4), counters(900), 2.0)
    worse = next(c for c in compare(evidence, CONFIG) if c.measure == "latency")
    assert worse.verdict == "worse"
    assert "took longer than" in worse.summary


def test_latency_within_the_ratio_is_no_harm() -> None:
    evidence = RolloutEvidence(7)
    for _ in range(20):
        evidence = evidence.observe(counters(100, seconds=0.04), counters(900), 2.0)
    assert verdicts(evidence)["latency"] == "no_worse"
    assert slower_buckets(1.0)[3] == 3
    assert REQUEST_SECONDS_BUCKETS[slower_buckets(2.0)[3]] == 0.025


def test_without_latency_errors_alone_decide() -> None:
    config = RolloutConfig(latency=None)
    evidence = RolloutEvidence(7).observe(counters(1000, seconds=9.0), counters(1000), 2.0)
    assert verdicts(evidence, config) == {"errors": "no_worse"}


@pytest.mark.parametrize(
    ("said", "requests", "hours", "action", "verdict"),
    [
        (("no_worse", "no_worse"), 500, 1, "advance", "no_worse"),
        (("no_worse", "better"), 500, 1, "advance", "better"),
        (("better", "better"), 499, 1, "wait", "not_enough_evidence"),
        (("better", "better"), 499, 25, "hold", "not_enough_evidence"),
        (("better", "not_enough_evidence"), 10**6, 1, "wait", "not_enough_evidence"),
        (("better", "not_enough_evidence"), 10**6, 25, "hold", "not_enough_evidence"),
        (("better", "worse"), 5, 25, "roll_back", "worse"),
    ],
)
def test_what_follows(
    said: tuple[Verdict, Verdict], requests: int, hours: int, action: str, verdict: Verdict
) -> None:
    comparisons = [comparison(v) for v in said]
    decision = decide(state(), comparisons, requests, BEGIN + timedelta(hours=hours))
    assert (decision.action, decision.verdict) == (action, verdict)


def test_what_is_not_required_vetoes_alone() -> None:
    unknown = comparison("not_enough_evidence", is_required=False)
    decision = decide(state(), [comparison("better"), unknown], 500, BEGIN)
    assert decision.action == "advance"
    harm = replace(unknown, verdict="worse")
    assert decide(state(), [comparison("better"), harm], 500, BEGIN).action == "roll_back"


def test_a_held_rollout_waits_but_for_harm() -> None:
    held = state(hold_reason="a holiday")
    assert decide(held, [comparison("better")], 500, BEGIN).reason == "held: a holiday"
    assert decide(held, [comparison("worse")], 500, BEGIN).action == "roll_back"


def test_by_hand_nothing_advances() -> None:
    manual = state(RolloutConfig(advance="manual"))
    assert decide(manual, [comparison("better")], 500, BEGIN).action == "wait"


def test_evidence_goes_on_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    assert RolloutEvidence.load(file, 7).version == ServiceCounters()
    evidence = RolloutEvidence(7, counters={"one": counters(5)})
    evidence = evidence.observe(counters(100, 5), counters(900, 1), 2.0).begin_step(2)
    evidence.save(file)
    again = RolloutEvidence.load(file, 7)
    assert (again.version, again.counters, again.step_requests) == (
        evidence.version,
        evidence.counters,
        0,
    )
    np.testing.assert_array_equal(again.log_errors, evidence.log_errors)
    np.testing.assert_array_equal(again.log_latency, evidence.log_latency)
    assert RolloutEvidence.load(file, 8).version == ServiceCounters()
    file.write_text("{")
    with pytest.raises(ArtifactError, match="delete it, and the evidence of the rollout begins"):
        RolloutEvidence.load(file, 7)


def test_counters_that_went_back_were_started_again() -> None:
    before = ServiceCounters(100, (50,) * 13, 3, 200, 4)
    assert before.since(before) == ServiceCounters()
    restarted = ServiceCounters(10, (2,) * 13, 0, 210, 6)
    assert restarted.since(before) == ServiceCounters(10, (2,) * 13, 0, 10, 2)
    proxy_restarted = ServiceCounters(110, (51,) * 13, 3, 9, 1)
    assert proxy_restarted.since(before) == ServiceCounters(10, (1,) * 13, 0, 9, 1)


def test_each_look_counts_from_the_last_one() -> None:
    first = {"own": counters(100), "other": counters(900)}
    evidence = RolloutEvidence(7).look(first, "own", 2.0)
    assert (evidence.version.requests, evidence.production.requests) == (0, 0)
    second = {"own": counters(150, 1), "other": counters(1300)}
    evidence = evidence.look(second, "own", 2.0)
    assert (evidence.version.requests, evidence.version.errors) == (50, 1)
    assert (evidence.step_requests, evidence.production.requests) == (50, 400)
    assert evidence.look({"other": counters(9000)}, "own", 2.0) == evidence


def test_a_service_that_crashes_is_judged_by_what_the_proxy_counts() -> None:
    begun = {"own": ServiceCounters(100, sent=100), "other": ServiceCounters(100, sent=150)}
    crashed = ServiceCounters(sent=108, errors=8, is_complete=False)
    unknown = RolloutEvidence(7).look({**begun, "own": crashed}, "own", 2.0)
    assert unknown.counters == {}
    evidence = RolloutEvidence(7).look(begun, "own", 2.0)
    later = {"own": crashed, "other": ServiceCounters(300, sent=350)}
    evidence = evidence.look(later, "own", 2.0)
    assert verdicts(evidence)["errors"] == "worse"
    assert evidence.counters["own"].answered == 100
    back = ServiceCounters(105, sent=113, errors=8)
    evidence = evidence.look({**later, "own": back}, "own", 2.0)
    assert (evidence.version.answered, evidence.version.errors) == (5, 8)


def test_the_counters_of_a_service_are_those_of_predictions() -> None:
    metrics = ServiceMetrics("digits", "1")
    for route, status, seconds in (
        ("/predict", 200, 0.03),
        ("/predict/batch", 500, 3.0),
        ("/metrics", 200, 9.0),
        ("/readyz", 503, 9.0),
    ):
        metrics.observe_request(route, status, seconds)
    parsed = parse_counters(metrics.render(queue=0).decode(), sent=9, errors=4)
    slow = dict(zip(REQUEST_SECONDS_BUCKETS, parsed.slower, strict=True))
    assert (slow[0.025], slow[0.05], slow[2.5], slow[5.0]) == (2, 1, 1, 0)
    # Two that the service answered with 5xx, and two that it never answered.
    assert (parsed.answered, parsed.server_errors, parsed.requests) == (2, 2, 4)


@pytest.mark.parametrize(
    "steps", [[0.1, 0.5], [0.5, 0.1, 1.0], [0.1, "shadow", 1.0], [0.0, 1.0], [1.0], ["shadow"]]
)
def test_steps_that_do_not_grow_to_production_are_refused(steps: list[object]) -> None:
    with pytest.raises((ConfigError, ValueError)):
        RolloutConfig.model_validate({"steps": steps})


def test_a_share_beside_a_rollout_is_refused() -> None:
    content = {"rollout": {}, "endpoint": {"canary_share": 0.1}}
    with pytest.raises((ConfigError, ValueError), match="the steps of the rollout say so"):
        DeploymentPipelineConfig.model_validate(content)
    assert DeploymentPipelineConfig.model_validate({"rollout": {}}).rollout == CONFIG
