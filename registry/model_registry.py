"""The registry of one model: its versions, their stages, approvals and history."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from zenml.client import Client
from zenml.models import ModelVersionResponse

from cv_factory.artifacts.files import fingerprint
from cv_factory.errors import ArtifactError
from cv_factory.evaluation.gates import GateVerdict
from registry import versions
from registry.audit.files import log_files
from registry.audit.log import AuditLog, Entry
from registry.mlflow.mirror import MlflowMirror
from registry.provenance.statement import stored_statement
from registry.stages import (
    Outcome,
    TransitionRefusedError,
    Transitions,
    open_intent,
    production_history,
)


class ModelRegistry:
    """Stages in ZenML, shown in MLflow, logged in the active stack's artifact store."""

    def __init__(self, model_name: str) -> None:
        """Open the registry of a model, which need not exist yet."""
        self.model_name = model_name
        self.log = AuditLog(log_files(Client().active_stack.artifact_store, model_name))
        self.mirror = MlflowMirror(model_name)
        self._transitions = Transitions(self.log, self, self.mirror)

    def recover(self) -> Outcome | None:
        """Finish or take back what was interrupted; None if nothing was.

        Raises:
            ArtifactError: The log was changed or cut: what looks interrupted may not have been.
        """
        if open_intent(self.log.entries()) is None:
            return None
        self.check_log()
        outcome = self._transitions.recover()
        if outcome is not None:
            self._keep_head()
        return outcome

    def stages(self) -> dict[int, str]:
        """Return the stage of each version, by number."""
        return {v.number: v.stage or "none" for v in versions.all_versions(self.model_name)}

    def set_stage(self, version: int, stage: str) -> None:
        """Move one version in ZenML alone; ``promote`` and its like are for everybody else."""
        versions.set_stage(self.model_name, version, stage)

    def record_registration(
        self, version: int, predictor: str, verdicts: Sequence[GateVerdict], who: str
    ) -> None:
        """Log that a version was registered, once."""
        entries = self.check_log()
        if any(e.kind == "registered" and e.detail["version"] == version for e in entries):
            return
        detail = {
            "version": version,
            "predictor": predictor,
            "verdicts": [asdict(verdict) for verdict in verdicts],
        }
        self.log.append(entries, "registered", who, "a run evaluated a new predictor", detail)
        self._keep_head()

    def stage(
        self, version: int, stage: str, verdicts: Sequence[GateVerdict], who: str, why: str
    ) -> Outcome:
        """Move a version to ``staging``, or back to ``none``, on the verdicts of the gates."""
        detail = {"verdicts": [asdict(verdict) for verdict in verdicts]}
        return self._move("stage", version, stage, who, why, detail)

    def approve(self, version: int, who: str, why: str) -> Entry:
        """Sign a version off: this predictor with this provenance, and no other.

        Raises:
            RegistryError: There is no such version.
            ArtifactError: Its predictor or its run is gone, so that nobody can vouch for it.
        """
        self.recover()
        found = versions.get_version(self.model_name, version)
        detail = {
            "version": version,
            "predictor": fingerprint_of(found),
            "provenance": fingerprint(stored_statement(found)),
        }
        entry = self.log.append(self.check_log(), "approved", who, why, detail)
        self._keep_head()
        return entry

    def approval(self, version: ModelVersionResponse) -> Entry | None:
        """Return the last approval of a version's very predictor; None if there is none."""
        wanted = version.number, fingerprint_of(version)
        for entry in reversed(self.log.entries()):
            about = entry.detail.get("version"), entry.detail.get("predictor")
            if entry.kind == "approved" and about == wanted:
                return entry
        return None

    def verdicts(self, version: int) -> tuple[GateVerdict, ...]:
        """Return what the gates said when a version was registered, or when they last moved it."""
        for entry in reversed(self.log.entries()):
            if "verdicts" in entry.detail and _version_of(entry) == version:
                return tuple(GateVerdict(**verdict) for verdict in entry.detail["verdicts"])
        return ()

    def promote(self, version: int, who: str, why: str) -> Outcome:
        """Put a staged version into production; the version that was there is archived.

        Raises:
            TransitionRefusedError: It is not staged, or lacks the approval that it needs.
            LogConflictError: Another transition began at the same time and won.
        """
        self.recover()
        found = versions.get_version(self.model_name, version)
        if found.stage == "production":
            return Outcome("promote", "unchanged", ())
        approval = self.require_promotable(found)
        detail: dict[str, Any] = {"predictor": fingerprint_of(found)}
        if approval is not None:
            detail["approval"] = {"entry": approval.number, "who": approval.who}
        return self._move("promote", version, "production", who, why, detail)

    def require_promotable(self, found: ModelVersionResponse) -> Entry | None:
        """Return a version's approval, where there is one.

        Raises:
            TransitionRefusedError: It is not staged, or lacks the approval that it needs.
        """
        version, stage = found.number, found.stage or "none"
        if stage != "staging":
            raise TransitionRefusedError(
                f"Version {version} has the stage {stage}: only a version in staging, which passed "
                "its gates, goes to production (run.py rollback goes back to an earlier one)."
            )
        approval = self.approval(found)
        if str(found.run_metadata.get(versions.NEEDS_APPROVAL)) == "true" and approval is None:
            raise TransitionRefusedError(
                f"Version {version} needs a person's approval. Run: python run.py approve "
                f"{version} --model {self.model_name} --by NAME --reason WHY"
            )
        return approval

    def rollback(self, who: str, why: str, to: int | None = None) -> Outcome:
        """Put the version that was in production before back there, or a certain earlier one.

        Raises:
            TransitionRefusedError: There is none to go back to.
        """
        target = self.rollback_target(to)
        return self._move("rollback", target, "production", who, why, {})

    def rollback_target(self, to: int | None = None) -> int:
        """Return the version that a rollback would put into production.

        Raises:
            TransitionRefusedError: There is none to go back to.
        """
        self.recover()
        history = production_history(self.log.entries())
        earlier = list(dict.fromkeys(reversed(history[:-1])))
        if not earlier:
            raise TransitionRefusedError(
                f"{self.model_name} has no earlier production version to go back to: see "
                "run.py history."
            )
        if to is not None and to not in earlier:
            raise TransitionRefusedError(
                f"Version {to} was not in production before the present one; rollback goes to one "
                f"of: {', '.join(map(str, earlier))}."
            )
        return to or earlier[0]

    def check_log(self) -> tuple[Entry, ...]:
        """Read the log, checking its chain, and its end against what was kept elsewhere.

        Raises:
            ArtifactError: The log was changed or cut.
        """
        entries = self.log.entries()
        head = self.mirror.log_head()
        if head is not None:
            number, sha256 = head
            if len(entries) < number or entries[number - 1].sha256 != sha256:
                raise ArtifactError(
                    f"Audit log: entry {number} is not the one that MLflow remembers: the log was "
                    "cut or rewritten."
                )
        return entries

    def _move(
        self,
        action: str,
        version: int,
        stage: str,
        who: str,
        why: str,
        detail: Mapping[str, Any],
    ) -> Outcome:
        # Nothing is written after a log that was cut: the new end would hide it.
        self.check_log()
        outcome = self._transitions.move(action, version, stage, who=who, why=why, detail=detail)
        self._keep_head()
        return outcome

    def _keep_head(self) -> None:
        last = self.log.entries()[-1]
        self.mirror.show_log_head(last.number, last.sha256)


def fingerprint_of(version: ModelVersionResponse) -> str:
    """Return the fingerprint of a version's predictor, as it was registered."""
    return str(version.run_metadata.get("predictor", ""))


def _version_of(entry: Entry) -> int:
    """Return the version that an entry is about: of a move, the one that was asked for."""
    changes = entry.detail.get("changes")
    number: int = changes[-1]["version"] if changes else entry.detail["version"]
    return number
