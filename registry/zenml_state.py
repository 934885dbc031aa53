"""What ZenML holds of a model's versions, to compare it with the audit log, and its repair."""

from typing import Any
from uuid import UUID

from zenml.models import ModelVersionResponse

from registry import versions
from registry.audit.state import DELETED, LoggedVersion, LogState
from registry.outside_changes import OutsideChange, ZenMLVersion


def read_versions(model_name: str, state: LogState, *, with_links: bool) -> dict[int, ZenMLVersion]:
    """Return the versions in ZenML by number, with the artifacts that are linked to them or not."""
    return {
        version.number: ZenMLVersion(
            stage=version.stage or "none",
            metadata=dict(version.run_metadata),
            artifacts=_read_links(version, state.versions.get(version.number, LoggedVersion()))
            if with_links
            else None,
            updated=version.updated.isoformat(sep=" ", timespec="seconds"),
        )
        for version in versions.list_versions(model_name)
    }


def read_contents(version: ModelVersionResponse) -> dict[str, Any]:
    """Return a version's metadata and artifacts for the audit log, as it is being registered."""
    # These change after the registration.
    marks = (versions.NEEDS_APPROVAL, versions.CARD, versions.COMPLETE)
    return {
        "metadata": {k: v for k, v in version.run_metadata.items() if k not in marks},
        "artifacts": {name: ids[0] for name, ids in versions.linked_artifact_ids(version).items()},
    }


def restore(model_name: str, change: OutsideChange, logged: LoggedVersion) -> None:
    """Put metadata, or a link to an artifact, back as it was registered."""
    version = versions.get_version(model_name, change.version)
    if change.what == "metadata":
        versions.add_metadata(version, {change.name: logged.metadata[change.name]})
    elif change.what == "artifact":
        artifact = UUID(logged.artifacts[change.name])
        versions.link_artifacts(version, {change.name: artifact}, None)


def _read_links(version: ModelVersionResponse, logged: LoggedVersion) -> dict[str, tuple[str, ...]]:
    linked = versions.linked_artifact_ids(version)
    for name, artifact in logged.artifacts.items():
        if name not in linked and not versions.artifact_exists(artifact):
            linked[name] = (DELETED,)
    return linked
