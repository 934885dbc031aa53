"""Changes to a model's versions beside the registry, such as by ZenML's or MLflow's own commands.

They are what differs between ZenML, MLflow and the state that the audit log tells. Metadata, links
to artifacts and aliases are put back when they are recorded; stages and deletions are facts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from registry.audit.state import DELETED, LoggedVersion, LogState


@dataclass(frozen=True)
class ZenMLVersion:
    """What ZenML says about a version.

    Attributes:
        stage: Its stage.
        metadata: Its metadata.
        artifacts: Ids of the artifacts that are linked to it, by name; several for one name where
            one was linked beside the registry, ``DELETED`` for one that is gone; None if not read.
        updated: Time of its last update: ISO 8601, UTC.
    """

    stage: str
    metadata: Mapping[str, Any]
    artifacts: Mapping[str, tuple[str, ...]] | None
    updated: str


@dataclass(frozen=True)
class OutsideChange:
    """One thing that differs from what the registry wrote.

    Attributes:
        what: ``stage``, ``deleted``, ``metadata``, ``artifact``, ``alias`` or ``head``.
        version: Number of the version; 0 for an alias that names none, and for the log's head.
        before: What the audit log says.
        after: What is there now.
        name: Key of the metadata, name of the artifact or alias; else empty.
        updated: Time of ZenML's last update of the version; empty if unknown.
    """

    what: str
    version: int
    before: str
    after: str
    name: str = ""
    updated: str = ""

    @property
    def is_restored(self) -> bool:
        """Whether recording it also puts it back."""
        return self.what not in ("stage", "deleted") and self.after != DELETED

    def to_detail(self) -> dict[str, Any]:
        """Return the change for the audit log."""
        detail: dict[str, Any] = {
            "what": self.what,
            "version": self.version,
            "from": self.before,
            "to": self.after,
            "is_restored": self.is_restored,
        }
        return detail | {k: v for k in ("name", "updated") if (v := getattr(self, k))}

    def __str__(self) -> str:
        """Return the change in one line."""
        return describe_change(self.to_detail())


def describe_change(detail: Mapping[str, Any]) -> str:
    """Return one line about a change as the audit log holds it."""
    version, before, after = detail["version"], detail["from"], detail["to"]
    at = f" (ZenML says at {detail['updated']}, not by whom)" if detail.get("updated") else ""
    restored = "; restored" if detail["is_restored"] else ""
    match detail["what"]:
        case "stage":
            return f"version {version} {before} → {after}{at}"
        case "deleted":
            return f"version {version} ({before}) was deleted from ZenML"
        case "alias":
            return f"MLflow's alias {detail['name']} named {after} instead of {before}{restored}"
        case "head":
            return f"MLflow held {after} of the audit log's end, entry {before}{restored}"
        case what:
            return f"version {version}, {what} {detail['name']}: {before} → {after}{restored}"


def compare_versions(
    state: LogState, present: Mapping[int, ZenMLVersion]
) -> Iterator[OutsideChange]:
    """Yield what differs between ZenML and the log, version by version.

    A version that no run registered counts only once it has a stage: its registration may still
    be on its way. Versions of an unfinished transition are left out.
    """
    for number in sorted(state.versions.keys() | present.keys()):
        logged = state.versions.get(number, LoggedVersion())
        version = present.get(number)
        if number in state.moving:
            continue
        if version is None:
            if not logged.is_deleted and number in state.versions:
                yield OutsideChange("deleted", number, logged.stage, DELETED)
            continue
        if version.stage != logged.stage:
            yield OutsideChange(
                "stage", number, logged.stage, version.stage, updated=version.updated
            )
        if not logged.is_deleted:
            yield from _compare_contents(number, logged, version)


def compare_aliases(state: LogState, aliases: Mapping[str, int | None]) -> Iterator[OutsideChange]:
    """Yield the MLflow aliases that name another version than the one that the log has there.

    Args:
        state: The log's state; nothing is compared during a transition.
        aliases: Number of the version that each alias names; None for one that ZenML lacks.
    """
    if state.moving:
        return
    holders = {stage: number for number, stage in state.stages.items()}
    for alias in ("staging", "production"):
        expected, actual = holders.get(alias), aliases.get(alias)
        if alias not in aliases and expected is None:
            continue
        if alias not in aliases or actual != expected:
            named = "nothing" if alias not in aliases else _name(actual)
            yield OutsideChange("alias", expected or 0, _name(expected), named, alias)


def _name(number: int | None) -> str:
    return "no version of the registry" if number is None else f"version {number}"


def _compare_contents(
    number: int, logged: LoggedVersion, version: ZenMLVersion
) -> Iterator[OutsideChange]:
    for key, value in logged.metadata.items():
        actual = version.metadata.get(key)
        if actual != value:
            yield OutsideChange("metadata", number, str(value), str(actual), key, version.updated)
    if version.artifacts is None:
        return
    for name, artifact in logged.artifacts.items():
        linked = version.artifacts.get(name, ())
        if linked != (artifact,):
            after = ", ".join(linked) or "not linked"
            yield OutsideChange("artifact", number, artifact, after, name)
