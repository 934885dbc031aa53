"""State of a model's rollout as its audit log tells it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from cv_factory.config.rollout import RolloutConfig
from cv_factory.monitoring.rollout import RolloutState
from registry.audit.log import AuditEntry

_ENDS = ("rollout_aborted", "rollout_finished", "deployed")


def replay_rollout(entries: Sequence[AuditEntry]) -> RolloutState | None:
    """Return the rollout that is active after the entries of an audit log; None if none is.

    Whatever else deploys the model, or withdraws the version, ends it.
    """
    state: RolloutState | None = None
    for entry in entries:
        detail, when = entry.detail, datetime.fromisoformat(entry.when)
        if entry.kind == "rollout_started":
            config = RolloutConfig.model_validate(detail["rollout"])
            service = detail["service"]
            state = RolloutState(entry.number, detail["version"], service, config, 0, when, when)
        elif state is None:
            continue
        elif entry.kind in _ENDS or (
            entry.kind == "withdrawn" and detail["version"] == state.version
        ):
            state = None
        elif entry.kind == "rollout_step":
            state = replace(state, step_index=detail["step"], since=when, hold_reason=None)
        elif entry.kind == "rollout_held":
            state = replace(state, hold_reason=entry.why)
    return state
