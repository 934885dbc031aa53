"""Decides what a tick of the loop does next, from what is known of a model, and gives reasons.

Pure: a tick may come late or twice, since the same state and time give the same decision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from cv_factory.config.loop import LoopConfig, RetrainConfig
from cv_factory.monitoring.report import Recommendation

Action = Literal[
    "none",
    "wait",
    "continue_rollout",
    "rollback",
    "stop_retraining",
    "start_rollout",
    "retrain",
]
#: What became of a retraining. ``passed`` waits for its rollout; ``not_started`` trained nothing;
#: gates could not judge an ``inconclusive`` one, for lack of test images or the like.
Outcome = Literal[
    "running",
    "not_started",
    "interrupted",
    "failed",
    "refused",
    "inconclusive",
    "unchanged",
    "passed",
    "promoted",
    "withdrawn",
]
_NEVER = datetime.min.replace(tzinfo=UTC)
_FAILURES = ("interrupted", "failed", "refused", "unchanged", "withdrawn")


@dataclass(frozen=True)
class Retraining:
    """Training that the loop has begun.

    Attributes:
        id: Number of the audit entry that holds its intent.
        started: UTC.
        outcome: See ``Outcome``.
        version: Number of the version that it registered; None if none.
    """

    id: int
    started: datetime
    outcome: Outcome
    version: int | None = None

    @property
    def has_failed(self) -> bool:
        """Whether its challenger will not serve."""
        return self.outcome in _FAILURES

    @property
    def has_learned(self) -> bool:
        """Whether it has used the labels of its time: training on them again changes nothing."""
        return self.outcome not in ("running", "not_started", "interrupted", "failed")


@dataclass(frozen=True)
class Evidence:
    """Last monitoring report on the version in production.

    Attributes:
        time: When it was made, UTC.
        recommendation: What its findings recommend.
    """

    time: datetime
    recommendation: Recommendation


@dataclass(frozen=True)
class Challenger:
    """Version in staging.

    Attributes:
        version: Its number.
        refusal: Why it may not be deployed, such as a missing approval; empty if it may.
    """

    version: int
    refusal: str = ""


@dataclass(frozen=True)
class LabelCounts:
    """Labels of images from the field that may train, counted.

    Attributes:
        n_new: Labels that no training has used.
        n_test: Images that are for the test of a challenger, used before or not.
    """

    n_new: int
    n_test: int


@dataclass(frozen=True)
class LoopState:
    """What a tick decides on.

    Attributes:
        production: Number of the version in production; None if there is none.
        trained: When the version in production was trained, UTC.
        promoted: When it was promoted, UTC; None where a rollback, or nobody on the record, put it
            there.
        challenger: The version in staging, if there is one.
        rollout: Number of the version whose rollout is in progress; None without one.
        retrainings: Those that the loop began, the oldest first.
        reset: Number of the audit entry after which failures count: of a person's decision to go
            on, or of the last promotion; 0 without one.
        is_stopped: Whether the stop after the present failures is logged.
        evidence: None without a report on the version in production.
        monitored: When the monitoring pipeline ran last, on whichever version, UTC; None if never.
        labels: Those that may train; None if they were not counted, since other conditions decide.
    """

    production: int | None
    trained: datetime | None = None
    promoted: datetime | None = None
    challenger: Challenger | None = None
    rollout: int | None = None
    retrainings: tuple[Retraining, ...] = ()
    reset: int = 0
    is_stopped: bool = False
    evidence: Evidence | None = None
    monitored: datetime | None = None
    labels: LabelCounts | None = None

    @property
    def failures(self) -> int:
        """Number of the challengers that failed since the last reset."""
        return sum(r.has_failed for r in self.retrainings if r.id > self.reset)

    @property
    def started(self) -> list[Retraining]:
        """Retrainings that did train, or do, the oldest first."""
        return [r for r in self.retrainings if r.outcome != "not_started"]


@dataclass(frozen=True)
class Check:
    """One condition of an action.

    Attributes:
        rule: Its name, such as ``cooldown``.
        is_met: Whether it lets the action happen.
        reason: One sentence with the figures.
    """

    rule: str
    is_met: bool
    reason: str


@dataclass(frozen=True)
class Decision:
    """What a tick does, and why.

    Attributes:
        action: See ``Action``.
        reason: One sentence, for the audit log too.
        version: Number of the version that it is about; None if about none.
        checks: Every condition that was looked at.
    """

    action: Action
    reason: str
    version: int | None = None
    checks: tuple[Check, ...] = ()


def check_monitoring(state: LoopState, config: LoopConfig, now: datetime) -> Check:
    """Return whether the monitoring pipeline is due; a tick decides on the report that it makes."""
    every = config.monitoring.every_hours
    if state.production is None:
        return Check("monitoring due", False, "no version is in production")
    if state.monitored is None:
        return Check("monitoring due", True, "the model was never monitored")
    hours = (now - state.monitored) / timedelta(hours=1)
    reason = f"monitored {hours:.1f} hours ago, every {every:g}"
    return Check("monitoring due", not 0.0 <= hours < every, reason)


def decide(state: LoopState, config: LoopConfig, now: datetime) -> Decision:
    """Return the next action: at most one, what concerns clients first."""
    if state.retrainings and state.retrainings[-1].outcome == "running":
        started = state.retrainings[-1].started
        return Decision("wait", f"a retraining is in progress since {_format_time(started)}")
    if state.rollout is not None:
        reason = f"the rollout of version {state.rollout} is in progress"
        return Decision("continue_rollout", reason, state.rollout)
    report = _check_report(state, config, now)
    rollback = (report, *_check_rollback(state, config, now))
    if all(check.is_met for check in rollback):
        return Decision("rollback", report.reason, state.production, rollback)
    if state.failures >= config.retrain.max_failed_challengers and not state.is_stopped:
        reason = f"{state.failures} challengers in a row failed: the loop retrains no more"
        return Decision("stop_retraining", reason)
    rollout = tuple(_check_rollout(state, config))
    if all(check.is_met for check in rollout):
        assert state.challenger is not None
        reason = f"version {state.challenger.version} passed its gates"
        return Decision("start_rollout", reason, state.challenger.version, rollout)
    retrain = tuple(_check_retraining(report, state, config.retrain, now))
    checks = (*rollback[1:], *rollout, *retrain)
    if all(check.is_met for check in retrain):
        return Decision("retrain", retrain[0].reason, state.production, checks)
    # Of a challenger that waits, people have to know why.
    unmet = [check for check in (rollout if rollout[0].is_met else retrain) if not check.is_met]
    return Decision("none", unmet[0].reason, state.production, checks)


def _check_report(state: LoopState, config: LoopConfig, now: datetime) -> Check:
    """Return whether the last report, if it is young enough, recommends to act."""
    if state.production is None:
        return Check("report", False, "no version is in production")
    if state.evidence is None:
        return Check("report", False, f"no monitoring report on version {state.production}")
    time, recommendation = state.evidence.time, state.evidence.recommendation
    if now - time > timedelta(hours=config.monitoring.max_report_hours):
        return Check("report", False, f"the report of {_format_time(time)} is too old to decide")
    reasons = "; ".join(recommendation.reasons)
    if recommendation.action in ("rollback", "retrain"):
        return Check("report", True, reasons)
    alarms = f", only alerts: {reasons}" if reasons else ": no alarm"
    return Check("report", False, f"the report of {_format_time(time)} recommends nothing{alarms}")


def _check_rollback(state: LoopState, config: LoopConfig, now: datetime) -> Iterator[Check]:
    evidence, promoted = state.evidence, state.promoted
    is_recommended = evidence is not None and evidence.recommendation.action == "rollback"
    reason = "the report recommends a rollback" if is_recommended else "no rollback is recommended"
    yield Check("rollback", is_recommended, reason)
    if not is_recommended:
        return
    yield Check(
        "rollback enabled",
        config.rollback.enabled,
        f"rollback.enabled is {str(config.rollback.enabled).lower()}",
    )
    if promoted is None:
        yield Check("recent promotion", False, "no promotion put the version into production")
        return
    days = (now - promoted) / timedelta(days=1)
    reason = f"promoted {days:.1f} days ago, of {config.rollback.max_days:g}"
    yield Check("recent promotion", days <= config.rollback.max_days, reason)


def _check_rollout(state: LoopState, config: LoopConfig) -> Iterator[Check]:
    challenger = state.challenger
    trained = {r.version for r in state.retrainings if r.outcome == "passed"}
    if challenger is None or challenger.version not in trained:
        yield Check("challenger", False, "no version of a retraining is in staging")
        return
    number = challenger.version
    yield Check("challenger", True, f"version {number} of a retraining is in staging")
    yield Check(
        "rollout enabled",
        config.rollout.enabled,
        "rollout.enabled is true"
        if config.rollout.enabled
        else f"rollout.enabled is false: a person rolls version {number} out",
    )
    yield Check(
        "deployable",
        not challenger.refusal,
        challenger.refusal or f"version {number} may be deployed",
    )


def _check_retraining(
    report: Check, state: LoopState, config: RetrainConfig, now: datetime
) -> Iterator[Check]:
    """Yield the conditions of a retraining; the first one is its cause."""
    age = _check_age(state, config, now)
    cause = report if report.is_met or not age.is_met else age
    yield cause
    yield _check_cooldown(state, config, now)
    yield _check_budget(state, config, now)
    yield _check_waiting(state)
    yield Check(
        "not stopped",
        state.failures < config.max_failed_challengers,
        f"{state.failures} of {config.max_failed_challengers} challengers in a row failed",
    )
    yield Check(
        "retraining enabled",
        config.enabled,
        f"retrain.enabled is {str(config.enabled).lower()}",
    )
    # Last: labels are counted only where all else is met.
    required = config.min_labels_on_alarm if cause is report else config.min_new_labels
    yield from _check_labels(state.labels, required, config.min_test_images)


def _check_labels(
    labels: LabelCounts | None, min_new: int, min_test_images: int
) -> Iterator[Check]:
    if labels is None:
        yield Check("new labels", False, "labels were not counted")
        return
    reason = f"{labels.n_new} of {min_new} new labels that may train"
    yield Check("new labels", labels.n_new >= min_new, reason)
    has_test = labels.n_test >= min_test_images
    reason = f"{labels.n_test} of {min_test_images} test images from the field"
    advice = "" if has_test else "; for more label a uniform sample: python run.py labels queue"
    yield Check("test images", has_test, f"{reason}{advice}")


def _check_waiting(state: LoopState) -> Check:
    """Return whether no challenger waits; one that was turned back may stay in staging."""
    failed = {r.version for r in state.retrainings if r.has_failed}
    if state.challenger is None or state.challenger.version in failed:
        return Check("no challenger", True, "no version waits in staging")
    reason = f"version {state.challenger.version} in staging is to be promoted or rejected first"
    return Check("no challenger", False, reason)


def _check_age(state: LoopState, config: RetrainConfig, now: datetime) -> Check:
    since = state.trained
    if config.after_days is None or since is None:
        return Check("age", False, "the age of the version in production retrains nothing")
    days = (now - since) / timedelta(days=1)
    reason = f"version {state.production} is {days:.1f} days old, of {config.after_days:g}"
    return Check("age", days >= config.after_days, reason)


def _check_cooldown(state: LoopState, config: RetrainConfig, now: datetime) -> Check:
    # What was interrupted is tried again; the number of failures bounds how often.
    started = [r.started for r in state.started if r.outcome != "interrupted"]
    if not started:
        return Check("cooldown", True, "the loop has trained nothing yet")
    hours = (now - started[-1]) / timedelta(hours=1)
    reason = f"{hours:.1f} of {config.cooldown_hours:g} hours since the last training began"
    return Check("cooldown", hours >= config.cooldown_hours, reason)


def _check_budget(state: LoopState, config: RetrainConfig, now: datetime) -> Check:
    since = now - timedelta(days=config.budget_days)
    n = sum(retraining.started > since for retraining in state.started)
    reason = f"{n} of {config.budget_trainings} trainings in {config.budget_days:g} days"
    return Check("budget", n < config.budget_trainings, reason)


def find_label_cutoff(retrainings: Sequence[Retraining], trained: datetime | None) -> datetime:
    """Return the time after which labels are new to the loop's trainings, UTC.

    Args:
        retrainings: Those that the loop began.
        trained: When the version in production was trained; None if unknown.
    """
    return max([trained or _NEVER, *(r.started for r in retrainings if r.has_learned)])


def _format_time(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")
