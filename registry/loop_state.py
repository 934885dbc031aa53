"""State of a model that the loop decides on: what the log, the last report and the labels tell."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from zenml.client import Client
from zenml.enums import ExecutionStatus

from cv_factory.config.loop import LoopConfig
from cv_factory.errors import CVFactoryError
from cv_factory.monitoring.decisions import (
    Challenger,
    Evidence,
    LabelCounts,
    LoopState,
    Outcome,
    decide,
    find_label_cutoff,
)
from registry import retrainings
from registry.audit.log import AuditEntry
from registry.audit.rollouts import replay_rollout
from registry.audit.state import replay
from registry.model_registry import ModelRegistry
from registry.monitoring_reports import load_latest_report
from registry.rollouts import can_compare


def read_log(
    entries: Sequence[AuditEntry], lease_s: float, run_outcome: retrainings.RunOutcome
) -> LoopState:
    """Return what a log tells; reports and labels are not among it.

    Args:
        entries: The log.
        lease_s: See ``retrainings.read_retrainings``.
        run_outcome: See ``retrainings.read_retrainings``.
    """
    state, rollout = replay(entries), replay_rollout(entries)
    holders = {stage: number for number, stage in state.stages.items()}
    production, staging = holders.get("production"), holders.get("staging")
    registered = state.versions[production].entry if production is not None else 0
    return LoopState(
        production=production,
        trained=datetime.fromisoformat(entries[registered - 1].when) if registered else None,
        promoted=None if production is None else _find_promotion(entries, production),
        challenger=None if staging is None else Challenger(staging),
        rollout=None if rollout is None else rollout.version,
        retrainings=retrainings.read_retrainings(entries, lease_s, run_outcome),
        reset=retrainings.find_reset(entries),
        is_stopped=retrainings.is_stopped(entries),
    )


def _find_promotion(entries: Sequence[AuditEntry], production: int) -> datetime | None:
    """Return when a version was promoted; None if a rollback or nothing in the log moved it."""
    ends = {entry.detail["intent"]: entry for entry in entries if entry.kind == "done"}
    for intent in reversed(entries):
        if intent.kind != "intent" or intent.number not in ends:
            continue
        move = intent.detail["changes"][-1]
        if (move["version"], move["to_stage"]) == (production, "production"):
            is_promotion = intent.detail["action"] == "promote"
            return datetime.fromisoformat(ends[intent.number].when) if is_promotion else None
    return None


def read_state(
    registry: ModelRegistry,
    config: LoopConfig,
    count_labels: Callable[[datetime], LabelCounts],
    entries: Sequence[AuditEntry],
    *,
    now: datetime | None = None,
) -> LoopState:
    """Return all that a tick decides on.

    Args:
        registry: The model.
        config: Of the loop.
        count_labels: Counts the labels that may train, those given after a time as new.
        entries: The model's log.
        now: The present time; the labels, which take long to count, are counted only where they
            decide at that time. None to count them anyway.

    Raises:
        ArtifactError: A report is damaged.
    """
    name = registry.model_name
    state = read_log(entries, config.retrain.max_hours * 3600, find_run_outcome)
    newest = load_latest_report(name)
    own = load_latest_report(name, state.production) if state.production else None
    state = replace(
        state,
        challenger=state.challenger and _check_challenger(registry, state.challenger.version),
        evidence=None
        if own is None
        else Evidence(datetime.fromisoformat(own.created), own.recommendation),
        monitored=None if newest is None else datetime.fromisoformat(newest.created),
    )
    if now is not None:
        best_case = replace(state, labels=LabelCounts(sys.maxsize, sys.maxsize))
        if decide(best_case, config, now).action != "retrain":
            return state
    cutoff = find_label_cutoff(state.retrainings, state.trained)
    return replace(state, labels=count_labels(cutoff))


def find_run_outcome(run_name: str) -> Outcome:
    """Return what became of a training run that staged nothing and that no process waits for."""
    runs = Client().list_pipeline_runs(name=f"equals:{run_name}").items
    if not runs:
        return "not_started"
    status = runs[0].status
    if status in (ExecutionStatus.STOPPING, ExecutionStatus.STOPPED):
        return "interrupted"
    if status.is_finished:
        return "unchanged" if status.is_successful else "failed"
    is_synchronous = Client().active_stack.orchestrator.config.is_synchronous
    return "interrupted" if is_synchronous else "running"


def _check_challenger(registry: ModelRegistry, number: int) -> Challenger:
    """Return the version in staging, with what refuses its rollout."""
    try:
        registry.require_promotable(registry.get_version(number))
        if not can_compare(registry.model_name):
            reason = (
                f"{registry.model_name} is not deployed: nothing to compare version {number} with"
            )
            return Challenger(number, reason)
    except CVFactoryError as error:
        return Challenger(number, str(error))
    return Challenger(number)
