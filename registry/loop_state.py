"""State of a model that the loop decides on, as the audit log tells it."""

from collections.abc import Sequence
from datetime import datetime

from cv_factory.monitoring.decisions import Challenger, LoopState
from registry import retrainings
from registry.audit.log import AuditEntry
from registry.audit.state import replay


def read_log(
    entries: Sequence[AuditEntry], lease_s: float, run_outcome: retrainings.RunOutcome
) -> LoopState:
    """Return what a log tells; reports and labels are not among it.

    Args:
        entries: The log.
        lease_s: See ``retrainings.read_retrainings``.
        run_outcome: See ``retrainings.read_retrainings``.
    """
    state = replay(entries)
    holders = {stage: number for number, stage in state.stages.items()}
    production, staging = holders.get("production"), holders.get("staging")
    registered = state.versions[production].entry if production is not None else 0
    return LoopState(
        production=production,
        trained=datetime.fromisoformat(entries[registered - 1].when) if registered else None,
        promoted=None if production is None else _find_promotion(entries, production),
        challenger=None if staging is None else Challenger(staging),
        rollout=_find_rollout(entries),
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


def _find_rollout(entries: Sequence[AuditEntry]) -> int | None:
    """Return the version whose rollout has no end yet."""
    for entry in reversed(entries):
        if entry.kind in ("rollout_finished", "rollout_aborted"):
            return None
        if entry.kind == "rollout_started":
            return int(entry.detail["version"])
    return None
