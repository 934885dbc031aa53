"""State of a model as its audit log tells it: versions, verdicts, overrides and the policy.

What the log says decides; ZenML's stages and metadata, which anybody with ZenML's own commands can
change, are compared with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cv_factory.evaluation.gate_verdict import GateVerdict
from registry.audit.log import AuditEntry

#: Stands for an artifact that was deleted, in place of its id.
DELETED = "deleted"


@dataclass(frozen=True)
class Policy:
    """Policy of promotions.

    Attributes:
        manual_approval: Whether a version needs an approval before production.
        approvers: Users who may approve, promote and override; empty for anybody.
        separate_approver: Whether the one who trained a version may not approve it.
    """

    manual_approval: bool = False
    approvers: tuple[str, ...] = ()
    separate_approver: bool = False

    @property
    def restricts_people(self) -> bool:
        """Whether it matters who approves, so that ``--by`` must name the authenticated user."""
        return bool(self.approvers) or self.separate_approver


@dataclass(frozen=True)
class LoggedVersion:
    """A version as it was registered, and where it is.

    Attributes:
        predictor: Fingerprint of its predictor; empty if no run registered it.
        entry: Number of the entry of its registration.
        stage: Its stage.
        metadata: Its metadata at registration.
        artifacts: Ids of its artifacts at registration, by name.
        author: Identity of its training run; None where an older release registered it.
        needs_approval: As registered; None where an older release registered it.
        is_moved_outside: Whether its stage was set beside the registry.
        is_deleted: Whether it was deleted beside the registry.
        rejection: Entry of its rejection, if that was the last thing that was decided about it.
    """

    predictor: str = ""
    entry: int = 0
    stage: str = "none"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    author: Mapping[str, str] | None = None
    needs_approval: bool | None = None
    is_moved_outside: bool = False
    is_deleted: bool = False
    rejection: AuditEntry | None = None


@dataclass(frozen=True)
class LogState:
    """State after an audit log's last entry.

    Attributes:
        versions: Versions by number.
        verdicts: Last verdicts on each predictor, by fingerprint.
        overrides: Entries of kind ``override``.
        approvals: Entries of kind ``approved``.
        policy: The policy that holds.
        moving: Versions of a transition that has no end yet.
    """

    versions: Mapping[int, LoggedVersion]
    verdicts: Mapping[str, tuple[GateVerdict, ...]]
    overrides: tuple[AuditEntry, ...]
    approvals: tuple[AuditEntry, ...]
    policy: Policy
    moving: frozenset[int]

    @property
    def stages(self) -> dict[int, str]:
        """Stages of the versions that were not deleted, by number."""
        return {n: v.stage for n, v in self.versions.items() if not v.is_deleted}


def replay(entries: Sequence[AuditEntry]) -> LogState:
    """Return the state that a log's entries lead to."""
    state = _Replay()
    for entry in entries:
        state.apply(entry)
    return LogState(
        versions=state.versions,
        verdicts=state.verdicts,
        overrides=tuple(e for e in entries if e.kind == "override"),
        approvals=tuple(e for e in entries if e.kind == "approved"),
        policy=state.policy,
        moving=frozenset(c["version"] for i in state.open.values() for c in i.detail["changes"]),
    )


def parse_verdicts(detail: Mapping[str, Any]) -> tuple[GateVerdict, ...]:
    """Return the verdicts that an entry holds."""
    return tuple(GateVerdict(**verdict) for verdict in detail["verdicts"])


class _Replay:
    """Applies the entries of a log one after the other."""

    def __init__(self) -> None:
        self.versions: dict[int, LoggedVersion] = {}
        self.verdicts: dict[str, tuple[GateVerdict, ...]] = {}
        self.policy = Policy()
        self.open: dict[int, AuditEntry] = {}

    def apply(self, entry: AuditEntry) -> None:
        detail = entry.detail
        match entry.kind:
            case "registered":
                self._register(entry)
            case "judged":
                keys = ("needs_approval", "metadata", "artifacts")
                changes = {key: detail[key] for key in keys if key in detail}
                self._update(detail["version"], **changes)
                self.verdicts[detail["predictor"]] = parse_verdicts(detail)
            case "intent":
                self._begin(entry)
            case "done" | "undone":
                intent = self.open.pop(detail["intent"], None)
                if intent is not None and entry.kind == "done":
                    self._move(intent)
            case "outside":
                for change in detail["changes"]:
                    self._apply_outside_change(change)
            case "policy":
                self.policy = Policy(
                    detail["manual_approval"],
                    tuple(detail["approvers"]),
                    detail["separate_approver"],
                )

    def _register(self, entry: AuditEntry) -> None:
        detail = entry.detail
        earlier = self.versions.get(detail["version"], LoggedVersion())
        # Registered in the artifact store of another stack, which gave it the stage.
        has_stage = not earlier.predictor and not earlier.is_deleted
        self.versions[detail["version"]] = LoggedVersion(
            predictor=detail["predictor"],
            stage=earlier.stage if has_stage else "none",
            is_moved_outside=has_stage and earlier.is_moved_outside,
            entry=entry.number,
            # Entries of older releases hold the predictor's fingerprint alone.
            metadata=detail.get("metadata", {"predictor": detail["predictor"]}),
            artifacts=detail.get("artifacts", {}),
            author=detail.get("identity"),
            needs_approval=detail.get("needs_approval"),
        )
        self.verdicts[detail["predictor"]] = parse_verdicts(detail)

    def _begin(self, intent: AuditEntry) -> None:
        self.open[intent.number] = intent
        if "verdicts" in intent.detail:
            requested = intent.detail["changes"][-1]["version"]
            predictor = self.versions.get(requested, LoggedVersion()).predictor
            self.verdicts[predictor] = parse_verdicts(intent.detail)

    def _move(self, intent: AuditEntry) -> None:
        *displaced, requested = intent.detail["changes"]
        for change in displaced:
            self._update(change["version"], stage=change["to_stage"], is_moved_outside=False)
        self._update(
            requested["version"],
            stage=requested["to_stage"],
            is_moved_outside=False,
            rejection=intent if intent.detail["action"] == "reject" else None,
        )

    def _apply_outside_change(self, change: Mapping[str, Any]) -> None:
        if change["what"] == "stage":
            stage = change["to"]
            self._update(change["version"], stage=stage, is_moved_outside=True, rejection=None)
        elif change["what"] == "deleted":
            self._update(change["version"], stage="none", is_deleted=True)
        elif change["what"] == "artifact" and change["to"] == DELETED:
            logged = self.versions[change["version"]].artifacts
            artifacts = {name: id_ for name, id_ in logged.items() if name != change["name"]}
            self._update(change["version"], artifacts=artifacts)

    def _update(self, number: int, **changes: Any) -> None:
        self.versions[number] = replace(self.versions.get(number, LoggedVersion()), **changes)
