"""The loop begins nothing twice, whatever is killed, late or at the same time.

Time, training and rollouts are fakes; the decisions, what is logged and the recovery are real.
"""

import random
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any
from unittest.mock import Mock

import pytest

from cv_factory.config.loop import LoopConfig
from cv_factory.errors import CVFactoryError
from cv_factory.monitoring.report import Recommendation
from registry import process_owner, retrainings
from registry.audit.log import LogConflictError
from tests.support.fake_loop import FakeModel, Killed

DECAY = Recommendation("retrain", ("error_rise: the error rose",))
STEADY = Recommendation("none")
BLAME = Recommendation("rollback", ("error_rise: the error rose",))


@pytest.fixture
def model() -> FakeModel:
    """A model that has decayed, with the labels that prove it."""
    model = FakeModel()
    model.now += timedelta(days=10)
    model.recommendation = DECAY
    model.labels = [model.now] * 60
    return model


def killed_at(model: FakeModel, n: int) -> bool:
    """Run a tick that is killed at its point number n; return whether it was."""
    remaining = n

    def point() -> None:
        nonlocal remaining
        if remaining == 0:
            raise Killed
        remaining -= 1

    model.point = point
    try:
        model.tick()
    except Killed:
        return True
    finally:
        model.point = lambda: None
    return False


def test_from_an_alarm_to_a_promotion_in_three_ticks(model: FakeModel) -> None:
    results = [model.tick() for _ in range(4)]
    assert [result.decision.action for result in results] == [
        "retrain", "start_rollout", "continue_rollout", "none",
    ]  # fmt: skip
    assert results[0].monitoring.is_met
    assert results[0].outcome == "passed"
    assert [kind for kind in model.kinds() if kind not in ("intent", "done")] == [
        "registered", "retraining_intended", "registered", "retraining_finished",
        "rollout_started", "rollout_finished",
    ]  # fmt: skip
    intent, end = (e for e in model.log.entries() if e.kind.startswith("retraining_"))
    assert intent.why == "error_rise: the error rose"
    assert (end.detail["intent"], end.detail["outcome"]) == (intent.number, "passed")
    assert end.detail["version"] == 2


def test_a_tick_that_decides_nothing_writes_nothing(model: FakeModel) -> None:
    model.recommendation = STEADY
    model.tick()
    before = model.kinds()
    assert [model.tick().decision.action for _ in range(3)] == ["none"] * 3
    assert model.kinds() == before
    assert model.loop.explain().decision.action == "none"


def test_an_explanation_changes_nothing(model: FakeModel) -> None:
    model.monitor()
    before = model.kinds()
    assert model.loop.explain().decision.action == "retrain"
    assert (model.kinds(), model.trainings) == (before, [])


def test_after_two_failed_challengers_the_loop_stops_and_alerts_once(model: FakeModel) -> None:
    model.passes_gates = False
    config = LoopConfig.model_validate({"retrain": {"cooldown_hours": 0.0}})
    model.config = config
    actions = []
    for _ in range(5):
        actions.append(model.tick().decision.action)
        model.now += timedelta(hours=30)
        model.labels += [model.now] * 60
    assert actions == ["retrain", "retrain", "stop_retraining", "none", "none"]
    assert [(a.incident, a.severity) for a in model.alerts] == [
        ("retraining/digits", "warning"),
        ("retraining/digits", "warning"),
        ("retraining_stopped/digits", "critical"),
    ]
    model.loop.resume("Ada", "the labels were wrong, and are corrected")
    assert model.alerts[-1].status == "resolved"
    assert model.tick().decision.action == "retrain"


def test_a_challenger_that_gates_cannot_judge_has_not_failed(model: FakeModel) -> None:
    model.passes_gates = model.is_judged = False
    result = model.tick()
    assert (result.decision.action, result.outcome) == ("retrain", "inconclusive")
    assert "could not judge version 2" in model.alerts[-1].summary
    state = model.read_state(model.log.entries())
    assert state.failures == 0
    assert state.labels is not None
    assert state.labels.n_new == 0, "the same labels would give the same challenger"


def test_nothing_trains_without_test_images_from_the_field(model: FakeModel) -> None:
    model.n_test = 0
    result = model.tick()
    assert result.decision.action == "none"
    assert result.decision.reason.startswith("0 of 20 test images from the field")
    assert model.trainings == []


def test_a_failing_training_is_logged_and_told(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "train", Mock(side_effect=CVFactoryError("the disk is full")))
    with pytest.raises(CVFactoryError, match="disk is full"):
        model.tick()
    end = model.log.entries()[-1]
    assert (end.kind, end.detail["outcome"], end.why) == (
        "retraining_finished", "failed", "the disk is full",
    )  # fmt: skip
    assert [alert.status for alert in model.alerts] == ["firing"]


def test_a_failing_monitor_holds_up_no_rollout(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.start_rollout(1, "a test")
    monkeypatch.setattr(model, "monitor", Mock(side_effect=CVFactoryError("no predictions")))
    with pytest.raises(CVFactoryError, match="no predictions"):
        model.tick()
    assert model.kinds()[-1] == "rollout_finished"


def test_a_training_that_was_killed_anywhere_is_recovered(model: FakeModel) -> None:
    """Each point of the tick that trains; then ticks until nothing is to be done."""
    seen = set()
    for n in range(100):
        model = FakeModel()
        model.now += timedelta(days=10)
        model.recommendation, model.labels = DECAY, [model.now] * 60
        if not killed_at(model, n):
            break
        for _ in range(6):
            model.tick()
        ends = [e.detail["outcome"] for e in model.log.entries() if e.kind == retrainings.FINISHED]
        seen.add(tuple(ends))
        assert ends.count("passed") == 1, "exactly one training came to its end"
        assert Counter(model.rollouts).most_common(1)[0][1] == 1
        assert model.read_state(model.log.entries()).production == int(model.rollouts[-1])
    else:
        pytest.fail("there was no end to the points")
    assert {("passed",), ("not_started", "passed"), ("interrupted", "passed")} <= seen


def test_a_training_of_a_living_process_is_waited_for(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_owner, "is_current", lambda _: False)
    monkeypatch.setattr(process_owner, "is_running", lambda owner, lease_s: lease_s == 24 * 3600)
    assert killed_at(model, 3)
    assert model.kinds()[-1] == "retraining_intended"
    assert model.tick().decision.action == "wait"
    monkeypatch.setattr(process_owner, "is_running", lambda owner, lease_s: False)
    assert model.tick().decision.action == "retrain"


def test_of_two_ticks_at_once_one_begins(model: FakeModel) -> None:
    """The second tick runs whole at each point of the first."""
    for n in range(100):
        model = FakeModel()
        model.now += timedelta(days=10)
        model.recommendation, model.labels = DECAY, [model.now] * 60
        points = iter(range(100))

        def point(model: FakeModel = model, points: Any = points, n: int = n) -> None:
            if next(points) == n:
                model.tick()

        model.point = point
        with suppress(LogConflictError):
            model.tick()
        model.point = lambda: None
        assert len(model.trainings) == 1
        if next(points) <= n:
            return
    pytest.fail("there was no end to the points")


def test_of_two_ticks_at_once_one_rolls_back(model: FakeModel) -> None:
    model.labels.clear()
    for version in (2, 3):
        model.promote_new(version)
    model.recommendation = BLAME
    points = iter(range(100))

    def point() -> None:
        if next(points) == 1:  # the one after monitoring
            model.tick()

    model.point = point
    with pytest.raises(LogConflictError):
        model.tick()
    assert model.read_state(model.log.entries()).production == 2


def test_a_thousand_ticks_under_random_kills_begin_nothing_twice() -> None:
    """Kills, second ticks in the middle, failing gates, rollouts of both ends, any delay."""
    rng = random.Random(16)
    model = FakeModel(LoopConfig.model_validate({"retrain": {"budget_trainings": 20}}))
    depth = 0

    def point() -> None:
        if rng.random() < 0.08:
            raise Killed
        if depth == 1 and rng.random() < 0.1:
            tick()

    def tick() -> None:
        nonlocal depth
        depth += 1
        with suppress(Killed, LogConflictError):
            model.tick()
        depth -= 1

    model.point = point
    for _ in range(1000):
        model.now += timedelta(hours=rng.choice([0.25, 1, 6, 48]))
        model.labels += [model.now] * rng.choice([0, 30])
        model.recommendation = rng.choice([DECAY, STEADY, BLAME])
        model.passes_gates, model.is_better = rng.random() < 0.7, rng.random() < 0.7
        tick()
        if rng.random() < 0.05:
            with suppress(Killed, LogConflictError):
                model.loop.resume("Ada", "go on")
    _check_log(model)


def _check_log(model: FakeModel) -> None:
    """Check that no training or rollout began twice, or before the end of another one."""
    assert len(model.trainings) == len(set(model.trainings)) > 30
    assert len(model.rollouts) == len(set(model.rollouts)) > 10
    open_intent, ended = None, Counter[str]()
    for entry in model.log.entries():
        if entry.kind == retrainings.INTENDED:
            assert open_intent is None
            open_intent = entry.number
        elif entry.kind == retrainings.FINISHED:
            assert entry.detail["intent"] == open_intent
            open_intent = None
            ended[entry.detail["outcome"]] += 1
    moves = [e for e in model.log.entries() if e.kind == "intent" and e.detail["action"] != "stage"]
    actions = [move.detail["action"] for move in moves]
    assert actions.count("rollback") > 5
    assert ("rollback", "rollback") not in pairwise(actions), "what was rolled back to is kept"
    assert min(ended[o] for o in ("passed", "refused", "interrupted", "not_started")) > 0
    _check_cooldown(model)


def _check_cooldown(model: FakeModel) -> None:
    """Check that two trainings that came to their end began a cooldown apart."""
    state = model.read_state(model.log.entries())
    starts = [r.started for r in state.started if r.outcome != "interrupted"]
    cooldown = timedelta(hours=model.config.retrain.cooldown_hours)
    assert all(b - a >= cooldown for a, b in pairwise(starts))


def run_days(model: FakeModel, days: int) -> None:
    """Run ticks every 4 hours, with 20 labels each."""
    for _ in range(6 * days):
        model.now += timedelta(hours=4)
        model.labels += [model.now] * 20
        model.tick()


def test_a_steady_stream_of_90_days_retrains_nothing() -> None:
    model = FakeModel(LoopConfig.model_validate({"retrain": {"after_days": None}}))
    run_days(model, 90)
    assert model.trainings == []


def test_an_oscillating_stream_retrains_at_most_once_a_cooldown() -> None:
    model = FakeModel(LoopConfig.model_validate({"retrain": {"budget_trainings": 100}}))
    for day in range(90):
        model.recommendation = DECAY if day % 2 else STEADY
        run_days(model, 1)
    assert 10 < len(model.trainings) < 14  # 90 days hold 12.9 weeks
    _check_cooldown(model)
