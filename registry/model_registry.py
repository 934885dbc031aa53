"""Registry of one model: its versions, their stages, approvals and history."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from zenml.client import Client
from zenml.models import ModelVersionResponse

from cv_factory.artifacts.files import fingerprint
from cv_factory.errors import ArtifactError
from cv_factory.evaluation.gates import GateVerdict
from registry import versions
from registry.audit.log import AuditEntry, AuditLog
from registry.audit.log_files import open_log_files
from registry.mlflow.mirror import MlflowMirror
from registry.provenance.statement import rebuild_statement
from registry.stages import (
    StageTransitions,
    TransitionRefusedError,
    TransitionResult,
    open_intent,
    production_history,
)


class ModelRegistry:
    """Registry of one model: moves stages in ZenML, mirrors them to MLflow, and logs them."""

    def __init__(self, model_name: str) -> None:
        """Open the registry of a model, which need not exist yet."""
        self.model_name = model_name
        self.log = AuditLog(open_log_files(Client().active_stack.artifact_store, model_name))
        self.mirror = MlflowMirror(model_name)
        self._transitions = StageTransitions(self.log, self, self.mirror)

    def recover(self) -> TransitionResult | None:
        """Complete or undo an interrupted transition; None if there is none.

        Raises:
            ArtifactError: The log was changed or cut, so that an open intent proves nothing.
        """
        if open_intent(self.log.entries()) is None:
            return None
        self.check_log()
        result = self._transitions.recover()
        if result is not None:
            self._store_log_head()
        return result

    def stages(self) -> dict[int, str]:
        """Return the stage of each version, by number."""
        return {v.number: v.stage or "none" for v in versions.list_versions(self.model_name)}

    def set_stage(self, version: int, stage: str) -> None:
        """Move one version in ZenML alone, for ``StageTransitions``; others call ``promote``."""
        versions.set_stage(self.model_name, version, stage)

    def record_registration(
        self, version: int, predictor: str, verdicts: Sequence[GateVerdict], who: str
    ) -> None:
        """Log once that a version was registered."""
        entries = self.check_log()
        if any(e.kind == "registered" and e.detail["version"] == version for e in entries):
            return
        detail = {
            "version": version,
            "predictor": predictor,
            "verdicts": [asdict(verdict) for verdict in verdicts],
        }
        self.log.append(entries, "registered", who, "a run evaluated a new predictor", detail)
        self._store_log_head()

    def stage(
        self, version: int, stage: str, verdicts: Sequence[GateVerdict], who: str, why: str
    ) -> TransitionResult:
        """Move a version to ``staging``, or back to ``none``, on the verdicts of the gates."""
        detail = {"verdicts": [asdict(verdict) for verdict in verdicts]}
        return self._move("stage", version, stage, who, why, detail)

    def approve(self, version: int, who: str, why: str) -> AuditEntry:
        """Approve a version: this predictor with this provenance, and no other.

        Raises:
            RegistryError: There is no such version.
            ArtifactError: Its predictor or its run was deleted.
        """
        self.recover()
        approved = versions.get_version(self.model_name, version)
        detail = {
            "version": version,
            "predictor": versions.predictor_fingerprint(approved),
            "provenance": fingerprint(rebuild_statement(approved)),
        }
        entry = self.log.append(self.check_log(), "approved", who, why, detail)
        self._store_log_head()
        return entry

    def approval(self, version: ModelVersionResponse) -> AuditEntry | None:
        """Return the last approval of a version with its present predictor; None without one."""
        key = version.number, versions.predictor_fingerprint(version)
        for entry in reversed(self.log.entries()):
            entry_key = entry.detail.get("version"), entry.detail.get("predictor")
            if entry.kind == "approved" and entry_key == key:
                return entry
        return None

    def verdicts(self, version: int) -> tuple[GateVerdict, ...]:
        """Return the gates' verdicts from a version's registration, or its last move by gates."""
        for entry in reversed(self.log.entries()):
            if "verdicts" in entry.detail and _entry_version(entry) == version:
                return tuple(GateVerdict(**verdict) for verdict in entry.detail["verdicts"])
        return ()

    def promote(self, version: int, who: str, why: str) -> TransitionResult:
        """Put a staged version into production; the version that was there is archived.

        Raises:
            TransitionRefusedError: It is not staged, or lacks the approval that it needs.
            LogConflictError: Another transition began at the same time and won.
        """
        self.recover()
        staged = versions.get_version(self.model_name, version)
        if staged.stage == "production":
            return TransitionResult("promote", "unchanged", ())
        approval = self.require_promotable(staged)
        detail: dict[str, Any] = {"predictor": versions.predictor_fingerprint(staged)}
        if approval is not None:
            detail["approval"] = {"entry": approval.number, "who": approval.who}
        return self._move("promote", version, "production", who, why, detail)

    def require_promotable(self, version: ModelVersionResponse) -> AuditEntry | None:
        """Return a version's approval, if it has one.

        Raises:
            TransitionRefusedError: It is not staged, or lacks the approval that it needs.
        """
        number, stage = version.number, version.stage or "none"
        if stage != "staging":
            raise TransitionRefusedError(
                f"Version {number} has the stage {stage}: only a version in staging, which passed "
                "its gates, goes to production (run.py rollback goes back to an earlier one)."
            )
        approval = self.approval(version)
        if str(version.run_metadata.get(versions.NEEDS_APPROVAL)) == "true" and approval is None:
            raise TransitionRefusedError(
                f"Version {number} needs a person's approval. Run: python run.py approve "
                f"{number} --model {self.model_name} --by NAME --reason WHY"
            )
        return approval

    def rollback(self, who: str, why: str, to: int | None = None) -> TransitionResult:
        """Put the previous production version, or the earlier one ``to``, back into production.

        Raises:
            TransitionRefusedError: There is none to go back to.
        """
        target = self.rollback_target(to)
        return self._move("rollback", target, "production", who, why, {})

    def rollback_target(self, to: int | None = None) -> int:
        """Return the number of the version that a rollback would put into production.

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

    def check_log(self) -> tuple[AuditEntry, ...]:
        """Read the log; check its chain, and its end against the head that MLflow holds.

        Raises:
            ArtifactError: The log was changed or cut.
        """
        entries = self.log.entries()
        head = self.mirror.log_head()
        if head is not None:
            number, sha256 = head
            if len(entries) < number or entries[number - 1].sha256 != sha256:
                raise ArtifactError(
                    f"Audit log: entry {number} does not have the hash that MLflow holds: the log "
                    "was cut or rewritten. Restore it from a backup of the artifact store."
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
    ) -> TransitionResult:
        # A cut log must not be continued: its new end would hide the cut.
        self.check_log()
        result = self._transitions.move(action, version, stage, who=who, why=why, detail=detail)
        self._store_log_head()
        return result

    def _store_log_head(self) -> None:
        last = self.log.entries()[-1]
        self.mirror.store_log_head(last.number, last.sha256)


def _entry_version(entry: AuditEntry) -> int:
    """Return the version of an entry; of a transition, the one that was requested."""
    changes = entry.detail.get("changes")
    number: int = changes[-1]["version"] if changes else entry.detail["version"]
    return number
