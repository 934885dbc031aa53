"""Moves versions between stages so that a kill at any point leaves the old or the new state.

ZenML (the truth), MLflow (the mirror) and the audit log share no transaction. So the intent is
logged first, every write can be repeated, and the next command completes an interrupted transition,
or undoes one that had not changed anything. The log's numbering lets only one transition begin.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from registry import process_owner
from registry.audit.log import AuditEntry, AuditLog, LogConflictError
from registry.permissions import TransitionRefusedError

STAGES = ("none", "staging", "production", "archived")
#: Age at which an open transition that another machine began counts as abandoned.
LEASE_S = 300.0


class TransitionInProgressError(TransitionRefusedError):
    """Another process that is still running moves versions."""


class StageStore(Protocol):
    """Source of truth for the stages."""

    def stages(self) -> dict[int, str]:
        """Return the stage of each version, by number."""

    def displaced(self, stage: str) -> list[int]:
        """Return the versions that are archived when another one gets the stage."""

    def set_stage(self, version: int, stage: str) -> None:
        """Move one version; repeating changes nothing."""


class StageMirror(Protocol):
    """Second place that shows the stages."""

    def update_stages(self, stages: Mapping[int, str]) -> None:
        """Make the mirror agree with these stages; repeating changes nothing."""


@dataclass(frozen=True)
class StageChange:
    """Move of one version."""

    version: int
    from_stage: str
    to_stage: str


@dataclass(frozen=True)
class TransitionResult:
    """Result of a transition.

    Attributes:
        action: Such as ``promote``.
        result: ``done``, ``undone`` or ``unchanged``.
        changes: The moves; the last one is that of the requested version.
        was_recovered: Whether an earlier process began it.
    """

    action: str
    result: str
    changes: tuple[StageChange, ...]
    was_recovered: bool = False

    def __str__(self) -> str:
        """Return one sentence for the command line."""
        if self.result == "unchanged":
            return f"Nothing to {self.action}: the version is there already."
        moves = ", ".join(
            f"version {c.version} {c.from_stage} → {c.to_stage}" for c in self.changes
        )
        if not self.was_recovered:
            return f"{self.action.capitalize()}: {moves}."
        verb = "finished" if self.result == "done" else self.result
        return f"An interrupted {self.action} was {verb}: {moves}."


#: Numbers of the intents that this process is completing.
_ACTIVE_INTENTS: set[int] = set()


class StageTransitions:
    """Transitions of one registered model's versions."""

    def __init__(self, log: AuditLog, store: StageStore, mirror: StageMirror) -> None:
        self._log, self._store, self._mirror = log, store, mirror

    def move(
        self,
        action: str,
        version: int,
        to_stage: str,
        *,
        who: str,
        why: str,
        detail: Mapping[str, Any] | None = None,
        after: tuple[AuditEntry, ...] | None = None,
    ) -> TransitionResult:
        """Move a version; the version that holds an exclusive stage is archived.

        Args:
            action: ``stage``, ``reject``, ``promote`` or ``rollback``, for the log.
            version: Its number.
            to_stage: One of ``STAGES``.
            who: For the log.
            why: For the log.
            detail: For the log, such as verdicts.
            after: The log that the move was decided on; None for the present one.

        Raises:
            LogConflictError: The log has grown since the decision, such as by another transition.
            TransitionRefusedError: There is no such version, or another transition is in progress.
        """
        self.recover()
        entries = self._log.entries() if after is None else after
        displaced = self._store.displaced(to_stage)
        changes = _plan_changes(self._store.stages(), displaced, version, to_stage)
        if not changes:
            return TransitionResult(action, "unchanged", ())
        intent_detail = {
            **(detail or {}),
            "action": action,
            "changes": [asdict(change) for change in changes],
            "owner": process_owner.current_process(),
        }
        intent = self._log.append(entries, "intent", who, why, intent_detail)
        _ACTIVE_INTENTS.add(intent.number)
        try:
            self._complete(intent, changes)
        finally:
            _ACTIVE_INTENTS.discard(intent.number)
        return TransitionResult(action, "done", changes)

    def recover(self) -> TransitionResult | None:
        """Complete an interrupted transition, or undo it if it changed nothing; None without one.

        Raises:
            TransitionInProgressError: The process that began it is still running.
        """
        intent = open_intent(self._log.entries())
        if intent is None:
            return None
        if is_in_progress(intent):
            raise TransitionInProgressError(
                f"{intent.who} is moving versions right now (audit log entry {intent.number}, "
                f"{intent.when}): try again in a moment."
            )
        action, changes = intent.detail["action"], _changes(intent)
        stages = self._store.stages()
        if all(stages.get(change.version, "none") == change.from_stage for change in changes):
            self._log_end("undone", intent, "nothing had been changed yet")
            return TransitionResult(action, "undone", changes, was_recovered=True)
        self._complete(intent, changes)
        return TransitionResult(action, "done", changes, was_recovered=True)

    def _complete(self, intent: AuditEntry, changes: Sequence[StageChange]) -> None:
        for change in changes:
            if self._store.stages().get(change.version) != change.to_stage:
                self._store.set_stage(change.version, change.to_stage)
        self._mirror.update_stages(self._store.stages())
        self._log_end("done", intent, intent.why)

    def _log_end(self, kind: str, intent: AuditEntry, why: str) -> None:
        """Log the end of a transition, unless another process has done so."""
        detail = {"intent": intent.number, "action": intent.detail["action"]}
        while not _is_closed(entries := self._log.entries(), intent):
            # Another process may log something else in between, such as a service it stopped.
            with suppress(LogConflictError):
                self._log.append(entries, kind, intent.who, why, detail)


def open_intent(entries: Sequence[AuditEntry]) -> AuditEntry | None:
    """Return the intent without an end, if there is one."""
    for entry in reversed(entries):
        if entry.kind in ("done", "undone"):
            return None
        if entry.kind == "intent":
            return entry
    return None


def production_history(entries: Sequence[AuditEntry]) -> list[int]:
    """Return the versions that a rollback can go back through; the last one is in production.

    A promotion adds one; a rollback removes those after the version that it goes back to. 0 stands
    for a version that was deleted and whose number ZenML gave to another one.
    """
    history: list[int] = []
    completed = {entry.detail["intent"] for entry in entries if entry.kind == "done"}
    for entry in entries:
        if entry.kind == "registered":
            history = [0 if number == entry.detail["version"] else number for number in history]
        for change in _changes(entry) if entry.number in completed else ():
            if change.to_stage == "production":
                if entry.detail["action"] == "rollback" and change.version in history:
                    del history[history.index(change.version) :]
                history.append(change.version)
    return history


def _changes(intent: AuditEntry) -> tuple[StageChange, ...]:
    return tuple(StageChange(**change) for change in intent.detail["changes"])


def _is_closed(entries: Sequence[AuditEntry], intent: AuditEntry) -> bool:
    ends = [entry for entry in entries if entry.kind in ("done", "undone")]
    return any(entry.detail["intent"] == intent.number for entry in ends)


def _plan_changes(
    stages: Mapping[int, str], displaced: Sequence[int], version: int, to_stage: str
) -> tuple[StageChange, ...]:
    if version not in stages:
        numbers = ", ".join(map(str, sorted(stages))) or "none"
        raise TransitionRefusedError(f"There is no version {version}; versions: {numbers}.")
    if stages[version] == to_stage:
        return ()
    archived = [
        StageChange(other, stages[other], "archived")
        for other in sorted(displaced)
        if other != version and other in stages
    ]
    return (*archived, StageChange(version, stages[version], to_stage))


def is_in_progress(intent: AuditEntry) -> bool:
    """Return whether the process that began a transition without an end is still running."""
    owner = intent.detail["owner"]
    if process_owner.is_current(owner):
        return intent.number in _ACTIVE_INTENTS
    return process_owner.is_running(owner, LEASE_S)
