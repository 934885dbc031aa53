"""Moves versions between stages so that a kill at any point leaves the old or the new state.

ZenML (the truth), MLflow (the mirror) and the audit log share no transaction. So the intent is
logged first; every write can be repeated; and whoever comes next finishes what was begun, or takes
back what had not changed anything yet. The log's numbering lets only one transition begin.
"""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import psutil

from cv_factory.errors import CVFactoryError
from registry.audit.log import AuditLog, Entry, LogConflictError

STAGES = ("none", "staging", "production", "archived")
_EXCLUSIVE = ("staging", "production")
#: After so many seconds a transition of another machine counts as abandoned.
LEASE_SECONDS = 300.0


class TransitionRefusedError(CVFactoryError):
    """A version may not be moved as asked."""

    exit_code = 3


class StageStore(Protocol):
    """Where stages are true."""

    def stages(self) -> dict[int, str]:
        """Return the stage of each version, by number."""

    def set_stage(self, version: int, stage: str) -> None:
        """Move one version; repeating changes nothing."""


class StageMirror(Protocol):
    """Where stages are shown as well."""

    def show(self, stages: Mapping[int, str]) -> None:
        """Make the mirror show these stages; repeating changes nothing."""


@dataclass(frozen=True)
class Change:
    """One version's move."""

    version: int
    from_stage: str
    to_stage: str


@dataclass(frozen=True)
class Outcome:
    """What became of a transition.

    Attributes:
        action: Such as ``promote``.
        result: ``done``, ``undone`` or ``unchanged``.
        changes: The moves; the last one is the version that was asked about.
        was_recovered: Whether somebody else had begun it.
    """

    action: str
    result: str
    changes: tuple[Change, ...]
    was_recovered: bool = False

    def __str__(self) -> str:
        """Return a sentence."""
        if self.result == "unchanged":
            return f"Nothing to {self.action}: the version is there already."
        moves = ", ".join(
            f"version {c.version} {c.from_stage} → {c.to_stage}" for c in self.changes
        )
        begun = "An interrupted " if self.was_recovered else ""
        verb = {"done": "finished" if self.was_recovered else "done"}.get(self.result, self.result)
        return f"{begun}{self.action} was {verb}: {moves}."


#: Intents that this process is working on right now.
_ACTIVE: set[int] = set()


class Transitions:
    """The stages of one registered model's versions."""

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
    ) -> Outcome:
        """Move a version; whichever version holds an exclusive stage makes room.

        Args:
            action: ``stage``, ``promote``, ``rollback`` or ``archive``, for the log.
            version: Its number.
            to_stage: One of ``STAGES``.
            who: For the log.
            why: For the log.
            detail: For the log, such as verdicts.

        Raises:
            LogConflictError: Another transition began at the same time and won.
            TransitionRefusedError: There is no such version, or another transition is under way.
        """
        self.recover()
        entries = self._log.entries()
        stages = self._store.stages()
        if version not in stages:
            known = ", ".join(map(str, sorted(stages))) or "none"
            raise TransitionRefusedError(f"There is no version {version}; versions: {known}.")
        changes = _plan(stages, version, to_stage)
        if not changes:
            return Outcome(action, "unchanged", ())
        intent = self._log.append(
            entries,
            "intent",
            who,
            why,
            {
                **(detail or {}),
                "action": action,
                "changes": [asdict(change) for change in changes],
                "owner": _owner(),
            },
        )
        _ACTIVE.add(intent.number)
        try:
            self._finish(intent, changes)
        finally:
            _ACTIVE.discard(intent.number)
        return Outcome(action, "done", changes)

    def recover(self) -> Outcome | None:
        """Finish what somebody began and did not end, or take it back; None if nothing is open.

        Raises:
            TransitionRefusedError: Whoever began it is still at work.
        """
        entries = self._log.entries()
        intent = open_intent(entries)
        if intent is None:
            return None
        if self._is_at_work(intent):
            raise TransitionRefusedError(
                f"{intent.who} is moving versions right now (audit log entry {intent.number}, "
                f"{intent.when}): try again in a moment."
            )
        changes = tuple(Change(**change) for change in intent.detail["changes"])
        stages = self._store.stages()
        action = intent.detail["action"]
        if all(stages.get(change.version, "none") == change.from_stage for change in changes):
            self._close("undone", intent, "nothing had been changed yet")
            return Outcome(action, "undone", changes, was_recovered=True)
        self._finish(intent, changes)
        return Outcome(action, "done", changes, was_recovered=True)

    def _finish(self, intent: Entry, changes: Sequence[Change]) -> None:
        for change in changes:
            if self._store.stages().get(change.version) != change.to_stage:
                self._store.set_stage(change.version, change.to_stage)
        self._mirror.show(self._store.stages())
        self._close("done", intent, intent.why)

    def _close(self, kind: str, intent: Entry, why: str) -> None:
        """Log how a transition ended, unless somebody else has done so."""
        entries = self._log.entries()
        if is_closed(entries, intent):
            return
        detail = {"intent": intent.number, "action": intent.detail["action"]}
        try:
            self._log.append(entries, kind, intent.who, why, detail)
        except LogConflictError:
            if not is_closed(self._log.entries(), intent):
                raise

    def _is_at_work(self, intent: Entry) -> bool:
        owner = intent.detail["owner"]
        if owner["host"] != socket.gethostname():
            return time.time() - float(owner["begun"]) < LEASE_SECONDS
        if owner["process"] != os.getpid():
            return _runs(owner["process"], float(owner["process_begun"]))
        return intent.number in _ACTIVE


def open_intent(entries: Sequence[Entry]) -> Entry | None:
    """Return the intent that has not ended, if there is one."""
    for entry in reversed(entries):
        if entry.kind in ("done", "undone"):
            return None
        if entry.kind == "intent":
            return entry
    return None


def is_closed(entries: Sequence[Entry], intent: Entry) -> bool:
    """Return whether an intent has ended."""
    ends = [e for e in entries if e.kind in ("done", "undone")]
    return any(entry.detail["intent"] == intent.number for entry in ends)


def finished(entries: Sequence[Entry]) -> list[Entry]:
    """Return the intents that ended as ``done``, oldest first."""
    done = {entry.detail["intent"] for entry in entries if entry.kind == "done"}
    return [entry for entry in entries if entry.number in done]


def production_history(entries: Sequence[Entry]) -> list[int]:
    """Return the versions that a rollback can walk back through; the last one is in production.

    A promotion adds one; a rollback takes away those after the version that it goes back to.
    """
    history: list[int] = []
    for intent in finished(entries):
        for change in (Change(**c) for c in intent.detail["changes"]):
            if change.to_stage == "production":
                if intent.detail["action"] == "rollback" and change.version in history:
                    del history[history.index(change.version) :]
                history.append(change.version)
    return history


def _plan(stages: Mapping[int, str], version: int, to_stage: str) -> tuple[Change, ...]:
    if stages[version] == to_stage:
        return ()
    making_room = [
        Change(other, stage, "archived")
        for other, stage in sorted(stages.items())
        if stage == to_stage and to_stage in _EXCLUSIVE
    ]
    return (*making_room, Change(version, stages[version], to_stage))


def _owner() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "process_begun": psutil.Process().create_time(),
        "begun": time.time(),
    }


def _runs(process: int, begun: float) -> bool:
    """Return whether that very process still runs: numbers are used again."""
    try:
        return bool(abs(psutil.Process(process).create_time() - begun) < 1.0)
    except psutil.NoSuchProcess:
        return False
