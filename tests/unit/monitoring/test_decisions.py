"""What a tick decides: each condition of an action alone prevents it, and says why."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cv_factory.config.loop import LoopConfig
from cv_factory.monitoring.decisions import (
    Challenger,
    Decision,
    Evidence,
    LabelCounts,
    LoopState,
    Outcome,
    Retraining,
    check_monitoring,
    decide,
    find_label_cutoff,
)
from cv_factory.monitoring.report import Recommendation

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
CONFIG = LoopConfig()


def ago(**elapsed: float) -> datetime:
    return NOW - timedelta(**elapsed)


def retraining(outcome: Outcome, number: int = 10, **elapsed: float) -> Retraining:
    return Retraining(number, ago(**elapsed or {"days": 20}), outcome, version=2)


RETRAIN = Recommendation("retrain", ("error_rise: the error rose from 3 % to 10 %",))
#: All that a retraining by alarm needs.
DECAYED = LoopState(
    production=1,
    trained=ago(days=40),
    promoted=ago(days=40),
    evidence=Evidence(ago(hours=1), RETRAIN),
    monitored=ago(hours=1),
    labels=LabelCounts(150, 20),
)
STEADY = replace(DECAYED, evidence=Evidence(ago(hours=1), Recommendation("none")))


def decide_with(config: dict[str, Any] | None = None, **changes: Any) -> Decision:
    return decide(replace(DECAYED, **changes), LoopConfig.model_validate(config or {}), NOW)


def test_harm_with_new_labels_retrains() -> None:
    decision = decide_with()
    assert (decision.action, decision.version) == ("retrain", 1)
    assert decision.reason == "error_rise: the error rose from 3 % to 10 %"


@pytest.mark.parametrize(
    ("changes", "config", "rule", "reason"),
    [
        ({"evidence": None}, {}, "report", "no monitoring report on version 1"),
        (
            {"evidence": Evidence(ago(hours=73), RETRAIN)},
            {},
            "report",
            "the report of 2026-11-26 11:00 UTC is too old to decide",
        ),
        (
            {"evidence": Evidence(NOW, Recommendation("alert", ("bbsd: the classes shifted",)))},
            {},
            "report",
            "the report of 2026-11-29 12:00 UTC recommends nothing, only alerts: "
            "bbsd: the classes shifted",
        ),
        (
            {"labels": LabelCounts(49, 20)},
            {},
            "new labels",
            "49 of 50 new labels that may train",
        ),
        (
            {"labels": LabelCounts(150, 19)},
            {},
            "test images",
            "19 of 20 test images from the field; for more label a uniform sample: python run.py "
            "labels queue",
        ),
        (
            {"retrainings": (retraining("promoted", hours=167),)},
            {},
            "cooldown",
            "167.0 of 168 hours since the last training began",
        ),
        (
            {"retrainings": (retraining("promoted", days=8),)},
            {"retrain": {"budget_trainings": 1}},
            "budget",
            "1 of 1 trainings in 30 days",
        ),
        (
            {"challenger": Challenger(3)},
            {},
            "no challenger",
            "version 3 in staging is to be promoted or rejected first",
        ),
        (
            {"retrainings": (retraining("refused", 10), retraining("failed", 20))}
            | {"is_stopped": True},
            {},
            "not stopped",
            "2 of 2 challengers in a row failed",
        ),
        ({}, {"retrain": {"enabled": False}}, "retraining enabled", "retrain.enabled is false"),
    ],
)
def test_each_condition_alone_prevents_a_retraining(
    changes: dict[str, Any], config: dict[str, Any], rule: str, reason: str
) -> None:
    decision = decide_with(config, **changes)
    assert (decision.action, decision.reason) == ("none", reason)
    unmet = [check.rule for check in decision.checks if not check.is_met]
    assert set(unmet) == {"rollback", "challenger", rule}


def test_age_retrains_with_enough_new_labels() -> None:
    old = replace(STEADY, trained=ago(days=90))
    assert decide(old, CONFIG, NOW).reason == "150 of 500 new labels that may train"
    enough = replace(old, labels=LabelCounts(500, 20))
    decision = decide(enough, CONFIG, NOW)
    assert (decision.action, decision.reason) == ("retrain", "version 1 is 90.0 days old, of 90")
    never = LoopConfig.model_validate({"retrain": {"after_days": None}})
    assert decide(enough, never, NOW).action == "none"


@pytest.mark.parametrize("outcome", ["not_started", "interrupted"])
def test_a_training_that_was_killed_is_tried_again_without_a_cooldown(outcome: Outcome) -> None:
    assert decide_with(retrainings=(retraining(outcome, minutes=5),)).action == "retrain"


def test_after_two_failed_challengers_the_loop_stops_once_and_a_reset_lets_it_go_on() -> None:
    failed = (retraining("refused", 10), retraining("withdrawn", 20))
    assert decide_with(retrainings=failed).action == "stop_retraining"
    assert decide_with(retrainings=failed, is_stopped=True).action == "none"
    assert decide_with(retrainings=failed, reset=25).action == "retrain"
    one_before = (*failed[:1], retraining("promoted", 15), *failed[1:])
    assert decide_with(retrainings=one_before, reset=16).action == "retrain"


def test_a_retraining_in_progress_and_a_rollout_come_first() -> None:
    running = (retraining("running", minutes=10),)
    assert decide_with(retrainings=running, rollout=2).action == "wait"
    assert decide_with(rollout=2) == Decision(
        "continue_rollout", "the rollout of version 2 is in progress", 2
    )


def test_only_a_version_that_the_loop_trained_is_rolled_out() -> None:
    passed: dict[str, Any] = {"retrainings": (retraining("passed"),)}
    decision = decide_with(challenger=Challenger(2), **passed)
    assert (decision.action, decision.version) == ("start_rollout", 2)
    assert decide_with(challenger=Challenger(3), **passed).action == "none"
    waiting = decide_with(challenger=Challenger(2, "needs a person's approval"), **passed)
    assert (waiting.action, waiting.reason) == ("none", "needs a person's approval")
    off = decide_with({"rollout": {"enabled": False}}, challenger=Challenger(2), **passed)
    assert off.reason == "rollout.enabled is false: a person rolls version 2 out"


def test_a_challenger_whose_rollout_was_aborted_stays_in_staging_and_prevents_nothing() -> None:
    aborted = (retraining("withdrawn"),)
    assert decide_with(retrainings=aborted, challenger=Challenger(2)).action == "retrain"


def test_a_version_that_was_promoted_lately_is_rolled_back_where_a_report_recommends_it() -> None:
    back = Evidence(NOW, Recommendation("rollback", ("error_rise: worse",)))
    young: dict[str, Any] = {"evidence": back, "promoted": ago(days=2)}
    assert decide_with(**young).action == "rollback"
    assert decide_with({"rollback": {"enabled": False}}, **young).action == "retrain"
    assert decide_with(evidence=back, promoted=ago(days=31)).action == "retrain"
    assert decide_with(evidence=back, promoted=None).action == "retrain"


def test_nothing_is_done_without_a_version_in_production() -> None:
    empty = LoopState(production=None)
    assert decide(empty, CONFIG, NOW).reason == "no version is in production"
    assert not check_monitoring(empty, CONFIG, NOW).is_met


@pytest.mark.parametrize(
    ("monitored", "is_due"),
    [(None, True), (ago(hours=24), True), (ago(hours=23), False), (ago(hours=-1), True)],
)
def test_monitoring_is_due_after_its_interval(monitored: datetime | None, is_due: bool) -> None:
    assert check_monitoring(replace(STEADY, monitored=monitored), CONFIG, NOW).is_met is is_due


def test_labels_are_new_after_the_last_training_that_could_have_used_them() -> None:
    trained, refused = ago(days=40), retraining("refused", days=3)
    assert find_label_cutoff((), trained) == trained
    assert find_label_cutoff((refused, retraining("failed", days=1)), trained) == refused.started
