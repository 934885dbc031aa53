"""Registry of one model: its versions, their gates, stages, approvals and history."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from zenml.client import Client
from zenml.models import ModelVersionResponse

from cv_factory.artifacts.files import fingerprint
from cv_factory.evaluation.gate_verdict import GateVerdict
from registry import standing, versions, zenml_state
from registry.actor import Actor
from registry.audit.log import AuditEntry, AuditLog
from registry.audit.log_files import open_log_files
from registry.audit.state import LoggedVersion, Policy, replay
from registry.mlflow.mirror import MlflowMirror
from registry.outside_changes import OutsideChange, compare_aliases, compare_versions
from registry.permissions import (
    TransitionRefusedError,
    require_approver,
    require_other_than_author,
)
from registry.provenance.statement import rebuild_statement
from registry.registry_log import RegistryLog
from registry.stages import StageTransitions, TransitionResult, open_intent, production_history
from registry.standing import GateStanding

logger = logging.getLogger(__name__)


class ModelRegistry:
    """Registry of one model: judges versions, moves stages in ZenML, mirrors and logs them.

    Methods that take ``who`` log that name beside the authenticated user; None is that user.
    """

    def __init__(self, model_name: str) -> None:
        """Open the registry of a model, which need not exist yet."""
        self.model_name = model_name
        self.mirror = MlflowMirror(model_name)
        log = AuditLog(open_log_files(Client().active_stack.artifact_store, model_name))
        self.log = RegistryLog(model_name, log, self.mirror)
        self._transitions = StageTransitions(log, self, self.mirror)
        self._announced: set[OutsideChange] = set()

    @property
    def actor(self) -> Actor:
        """Authenticated user of this process."""
        return self.log.actor

    def recover(self) -> TransitionResult | None:
        """Complete or undo an interrupted transition; None if there is none.

        Raises:
            ArtifactError: The log was changed or cut, so that an open intent proves nothing.
            TransitionInProgressError: The process that began it is still running.
        """
        if open_intent(self.log.entries()) is None:
            return None
        self.log.check()
        result = self._transitions.recover()
        if result is not None:
            self.log.store_head()
        return result

    def stages(self) -> dict[int, str]:
        """Return the stage of each version in ZenML, by number."""
        return {v.number: v.stage or "none" for v in versions.list_versions(self.model_name)}

    def settled_stages(self) -> dict[int, str]:
        """Return the stages as before a transition without an end, such as one in progress.

        Raises:
            ArtifactError: The log was changed.
        """
        while True:
            entries = self.log.entries()
            stages = self.stages()
            # A longer log means that a transition may have begun or ended meanwhile.
            if self.log.entries() == entries:
                break
        intent = open_intent(entries)
        moves = () if intent is None else intent.detail["changes"]
        before = {move["version"]: move["from_stage"] for move in moves}
        return {number: before.get(number, stage) for number, stage in stages.items()}

    def displaced(self, stage: str) -> list[int]:
        """Return the versions that ZenML archives when another one gets the stage.

        The stage ``none`` that was set is one too, other than that of a version that never had any.
        """
        present = versions.list_versions(self.model_name)
        return [v.number for v in present if stage != "archived" and v.stage == stage]

    def set_stage(self, version: int, stage: str) -> None:
        """Move one version in ZenML alone, for ``StageTransitions``; others call ``promote``."""
        versions.set_stage(self.model_name, version, stage)

    def detect_outside_changes(self, *, stages_only: bool = False) -> tuple[OutsideChange, ...]:
        """Compare ZenML, and MLflow's aliases, with the audit log; changes nothing.

        Args:
            stages_only: Whether to leave out linked artifacts and MLflow, for a quick look.

        Raises:
            ArtifactError: The log was changed.
            StackError: MLflow cannot be reached.
        """
        while True:
            entries = self.log.entries()
            state = replay(entries)
            present = zenml_state.read_versions(self.model_name, state, with_links=not stages_only)
            changes = list(compare_versions(state, present))
            if entries and not stages_only:
                aliases = self.mirror.alias_versions()
                changes += compare_aliases(state, aliases or {})
                # A kill right after the first entries, policy and registration, leaves none.
                is_started = aliases is not None and len(entries) > 2
                if is_started and self.mirror.log_head() is None:
                    changes.append(OutsideChange("head", 0, str(len(entries)), "nothing"))
            # A longer log means that another command was moving a version meanwhile.
            if self.log.entries() == entries:
                return tuple(changes)

    def record_outside_changes(self, who: str | None = None) -> tuple[OutsideChange, ...]:
        """Log what was changed beside the registry, and put back what can be put back.

        Every command that changes something calls this first, so that a stage that somebody set
        with ZenML's own command is on the record before anything is decided.

        Raises:
            ArtifactError: The log was changed or cut.
            LogConflictError: Another process wrote to the log at the same time.
        """
        self.recover()
        entries = self.log.check()
        changes = self.detect_outside_changes()
        if not changes:
            return ()
        self._warn(changes)
        detail = {"changes": [change.to_detail() for change in changes]}
        why = "found something changed beside the registry"
        self.log.append(entries, "outside", who, why, detail)
        state = self.log.state()
        for change in changes:
            if change.is_restored and change.what in ("metadata", "artifact"):
                zenml_state.restore(self.model_name, change, state.versions[change.version])
        self.mirror.update_stages(self.stages())
        self.log.store_head()
        return changes

    def warn_of_outside_changes(self) -> None:
        """Log, as warnings, what was changed in ZenML beside the registry; changes nothing."""
        self._warn(self.detect_outside_changes(stages_only=True))

    def _warn(self, changes: Sequence[OutsideChange]) -> None:
        for change in changes:
            if change not in self._announced:
                logger.warning("Changed outside the registry of %s: %s.", self.model_name, change)
        self._announced.update(changes)

    def gate_standing(self, version: int) -> GateStanding:
        """Return what the gates said about a version's predictor, and which were overridden."""
        return standing.gate_standing(self.log.state(), version)

    def require_fit(self, version: int, predictor: str | None = None) -> GateStanding:
        """Return the standing of a version that may be served.

        Args:
            version: Its number.
            predictor: Fingerprint of the predictor that is to be served; None for the linked one.

        Raises:
            RegistryError: There is no such version.
            TransitionRefusedError: A gate failed and is not overridden, no gate judged the version,
                or its predictor is not the one that was registered.
            ArtifactError: Its predictor was deleted or is damaged.
        """
        present = self.get_version(version)
        result = self.gate_standing(version)
        if not result.is_fit:
            raise TransitionRefusedError(standing.describe_unfit(result, self.model_name))
        actual = predictor or versions.load_predictor(present).fingerprint
        if actual != result.predictor:
            raise TransitionRefusedError(
                f"{self.model_name} version {version} was registered and judged with the predictor "
                f"{result.predictor[:16]}, but its predictor is now {actual[:16]}. Register and "
                "judge that one by a training run: python run.py --pipeline training --set "
                f"register.model_name={self.model_name}"
            )
        return result

    def get_version(self, number: int) -> ModelVersionResponse:
        """Return a version.

        Raises:
            RegistryError: There is none; the message says so where it was deleted.
        """
        try:
            return versions.get_version(self.model_name, number)
        except versions.RegistryError:
            if number not in self.log.state().versions:
                raise
            raise versions.RegistryError(
                f"{self.model_name} version {number} was deleted with ZenML's own command. Its "
                "artifacts are kept: the training command that made it registers its predictor "
                f"again. See: python run.py history --model {self.model_name}"
            ) from None

    def find_version(self, predictor: str) -> ModelVersionResponse | None:
        """Return the version that holds the predictor with this fingerprint, or None.

        The log names it. ZenML's tag, which anybody can give to another version, names one only
        where no run of this log registered it: its registration was killed before it was logged, or
        was logged in the artifact store of another stack.
        """
        logged = self.log.state().versions
        for version in versions.list_versions(self.model_name):
            if version.number in logged and logged[version.number].predictor == predictor:
                return version
        tagged = versions.find_version(self.model_name, predictor)
        if tagged is None:
            return None
        other = logged.get(tagged.number, LoggedVersion())
        return tagged if other.is_deleted or not other.predictor else None

    def record_registration(
        self,
        version: ModelVersionResponse,
        predictor: str,
        verdicts: Sequence[GateVerdict],
        who: str,
        *,
        needs_approval: bool,
    ) -> None:
        """Log that a version was registered or, if it was, what the gates say now."""
        entries, number = self.log.check(), version.number
        detail = {
            "version": number,
            "predictor": predictor,
            "verdicts": [asdict(verdict) for verdict in verdicts],
            "needs_approval": needs_approval,
        }
        state = replay(entries)
        logged = state.versions.get(number, LoggedVersion())
        is_new = logged.is_deleted or logged.predictor != predictor
        # A log of an older release; or an artifact or the run was deleted, and another run made the
        # version complete again.
        has_new_contents = versions.PREDICTOR not in logged.artifacts or logged.metadata.get(
            versions.RUN
        ) != version.run_metadata.get(versions.RUN)
        if is_new or has_new_contents:
            detail |= zenml_state.read_contents(version)
        if is_new:
            self.log.append(entries, "registered", who, "a run evaluated a new predictor", detail)
        elif (
            has_new_contents
            or state.verdicts[predictor] != tuple(verdicts)
            or logged.needs_approval != needs_approval
        ):
            self.log.append(entries, "judged", who, "a run judged a registered predictor", detail)

    def update_policy(self, configured: Policy, who: str) -> Policy:
        """Return the policy that holds after a run with this configuration, logged if it is new.

        Once there are approvers, the policy changes by one of them alone.
        """
        entries = self.log.check()
        current = replay(entries).policy
        if configured == current:
            return current
        if current.approvers and self.actor.name not in current.approvers:
            return current
        why = "a run was configured with another policy"
        self.log.append(entries, "policy", who, why, asdict(configured))
        return configured

    def approve(self, version: int, who: str | None, why: str) -> AuditEntry:
        """Approve a version: this predictor with this provenance, and no other.

        Raises:
            RegistryError: There is no such version.
            TransitionRefusedError: It did not pass its gates, or this user may not approve it.
            ArtifactError: Its predictor or its run was deleted.
        """
        entries = self._begin()
        self._require_decider("approve", version, who)
        detail = {
            "version": version,
            "predictor": self.require_fit(version).predictor,
            "provenance": fingerprint(rebuild_statement(self.get_version(version))),
        }
        return self.log.append(entries, "approved", who, why, detail)

    def approval(self, version: ModelVersionResponse) -> AuditEntry | None:
        """Return the last approval of a version with its registered predictor, or None."""
        return standing.find_approval(self.log.state(), version.number)

    def lacks_approval(self, version: ModelVersionResponse) -> bool:
        """Return whether a version needs an approval before production, and has none."""
        return self._needs_approval(version) and self.approval(version) is None

    def override(self, version: int, gate: str, who: str | None, why: str) -> AuditEntry:
        """Override the failed verdict of one gate on a version's predictor.

        Raises:
            RegistryError: There is no such version.
            TransitionRefusedError: No such gate failed, or this user may not override it.
        """
        entries = self._begin()
        self.get_version(version)
        self._require_decider("override", version, who)
        result = self.gate_standing(version)
        if gate not in result.failed:
            names = "; ".join(result.failed) or "none"
            raise TransitionRefusedError(
                f"{self.model_name} version {version} has no failed gate '{gate}' to override; "
                f"failed and not overridden: {names}."
            )
        verdict = next(v for v in result.verdicts if v.gate == gate and v.status == "failed")
        detail = {"version": version, "predictor": result.predictor, "verdict": asdict(verdict)}
        return self.log.append(entries, "override", who, why, detail)

    def stage(self, version: int, who: str | None, why: str) -> TransitionResult:
        """Put a version that is fit into staging; the one that was there is archived.

        Raises:
            RegistryError: There is no such version.
            TransitionRefusedError: It is not fit, or it is in production.
        """
        entries = self._begin()
        verdicts = self.require_fit(version).verdicts
        logged = self.log.state().versions[version]
        if logged.stage == "production" and not logged.is_moved_outside:
            raise TransitionRefusedError(
                f"{self.model_name} version {version} is in production: it is past staging."
            )
        detail = {"verdicts": [asdict(verdict) for verdict in verdicts]}
        return self._move("stage", version, "staging", who, why, detail, entries)

    def reject(self, version: int, who: str | None, why: str) -> TransitionResult:
        """Take a version out of staging; a training run does not stage it again.

        Raises:
            RegistryError: There is no such version.
            TransitionRefusedError: It is not in staging.
        """
        entries = self._begin()
        stage = self.get_version(version).stage or "none"
        if stage != "staging":
            raise TransitionRefusedError(
                f"{self.model_name} version {version} has the stage {stage}: only a version in "
                "staging is rejected."
            )
        return self._move("reject", version, "none", who, why, {}, entries)

    def update_stage(self, version: int, who: str) -> str:
        """Stage or unstage a version by its last verdicts; return the stage that holds then.

        What is in production, archived or rejected stays there: people decide about it.
        """
        entries = self.log.check()
        state = replay(entries)
        result = standing.gate_standing(state, version)
        target = "staging" if result.is_fit else "none"
        current = self.stages()[version]
        is_rejected = state.versions[version].rejection is not None
        if current not in ("none", "staging") or current == target or is_rejected:
            return current
        why = "all gates passed" if result.is_fit else "a gate failed"
        if result.is_fit and result.overrides:
            why = "all gates passed or are overridden"
        detail = {"verdicts": [asdict(verdict) for verdict in result.verdicts]}
        self._move("stage", version, target, who, why, detail, entries)
        return target

    def promote(
        self, version: int, who: str | None, why: str, *, predictor: str | None = None
    ) -> TransitionResult:
        """Put a staged version into production; the version that was there is archived.

        Args:
            version: Its number.
            who: For the log.
            why: For the log.
            predictor: Fingerprint of the predictor that serves; None for the linked one.

        Raises:
            TransitionRefusedError: It is not staged or not fit, lacks the approval that it needs,
                or this user may not promote.
            LogConflictError: Another transition began at the same time and won.
        """
        entries = self._begin()
        staged = self.get_version(version)
        if staged.stage == "production":
            self.require_deployable(staged)
            return TransitionResult("promote", "unchanged", ())
        approval = self.require_promotable(staged, who, predictor)
        detail: dict[str, Any] = {"predictor": versions.predictor_fingerprint(staged)}
        if approval is not None:
            detail["approval"] = {"entry": approval.number, "who": approval.who}
        return self._move("promote", version, "production", who, why, detail, entries)

    def require_promotable(
        self, version: ModelVersionResponse, who: str | None = None, predictor: str | None = None
    ) -> AuditEntry | None:
        """Return a version's approval, if it has one.

        Raises:
            TransitionRefusedError: It is not staged or not fit, lacks the approval that it needs,
                or this user may not promote it.
        """
        number, stage = version.number, version.stage or "none"
        self.require_fit(number, predictor)
        if stage != "staging":
            raise TransitionRefusedError(
                f"{self.model_name} version {number} has the stage {stage}: only a version in "
                f"staging goes to production. Run: python run.py stage {number} "
                f"--model {self.model_name}"
            )
        require_approver(self.log.state().policy, self.actor, who, "promote")
        if self.lacks_approval(version):
            raise TransitionRefusedError(
                f"{self.model_name} version {number} needs a person's approval. Run: python run.py "
                f"approve {number} --model {self.model_name} --reason WHY"
            )
        return self.approval(version)

    def require_deployable(
        self, version: ModelVersionResponse, who: str | None = None
    ) -> GateStanding:
        """Return the standing of a version that may serve: it may be promoted, or was by us.

        Raises:
            TransitionRefusedError: It may not; it is in production because somebody moved it there
                beside the registry; or it is archived.
        """
        if version.stage != "production":
            self.require_promotable(version, who)
        elif self.log.state().versions.get(version.number, LoggedVersion()).is_moved_outside:
            raise TransitionRefusedError(
                f"{self.model_name} version {version.number} is in production because somebody "
                "moved it there beside the registry: it is not deployed. "
                f"{self._way_out_of_production(version.number)}"
            )
        return self.require_fit(version.number)

    def _way_out_of_production(self, version: int) -> str:
        """Return how to end an outside move to production, with a command that is not refused."""
        model = f"--model {self.model_name}"
        if self.gate_standing(version).is_fit:
            return f"Stage it, then promote it: python run.py stage {version} {model}"
        try:
            self.rollback_target()
        except TransitionRefusedError:
            return f"Stage another one that passed its gates: python run.py models {model}"
        return f"Run: python run.py rollback {model}"

    def rollback(self, who: str | None, why: str, to: int | None = None) -> TransitionResult:
        """Put the previous production version, or the earlier one ``to``, back into production.

        Raises:
            TransitionRefusedError: There is none to go back to that is fit.
        """
        entries = self._begin()
        target = self.rollback_target(to)
        return self._move("rollback", target, "production", who, why, {}, entries)

    def rollback_target(self, to: int | None = None) -> int:
        """Return the number of the version that a rollback would put into production.

        Without ``to`` it is the last one that was in production by a command of ours, still
        exists, and is fit. A transition without an end is left alone, and does not count.

        Raises:
            TransitionRefusedError: There is none to go back to, or it is not fit.
        """
        stages = self.settled_stages()
        history = production_history(self.log.entries())
        earlier = [
            number
            for number in dict.fromkeys(reversed(history))
            if stages.get(number, "production") != "production"
        ]
        if to is not None and to not in earlier:
            raise TransitionRefusedError(self._describe_way_forward(to, earlier))
        if not earlier:
            raise TransitionRefusedError(
                f"{self.model_name} has no earlier production version to go back to. Any version "
                "that passed its gates can be staged and promoted: python run.py models --model "
                f"{self.model_name}"
            )
        fit = [number for number in earlier if self.gate_standing(number).is_fit]
        target = to or (fit or earlier)[0]
        self.require_fit(target)
        return target

    def _describe_way_forward(self, version: int, earlier: Sequence[int]) -> str:
        """Return why a rollback does not lead to a version, and the commands that do.

        Raises:
            RegistryError: There is no such version.
            TransitionRefusedError: It is not fit, so that no command does.
        """
        model, stage = f"--model {self.model_name}", self.get_version(version).stage
        if stage == "production":
            return f"Version {version} is in production. See: python run.py status {model}"
        self.require_fit(version)
        first = "" if stage == "staging" else f"python run.py stage {version} {model}, then: "
        others = f" Rollback goes to one of: {', '.join(map(str, earlier))}." if earlier else ""
        return (
            f"Version {version} was not in production before the present one, but passed its "
            f"gates. Run: {first}python run.py promote {version} {model}.{others}"
        )

    def reference_version(self) -> ModelVersionResponse | None:
        """Return the version that relative gates compare with; None before the first promotion.

        It is the one in production or, where somebody emptied production or moved an unfit version
        there beside the registry, the last one that our commands put there.

        Raises:
            RegistryError: Every version that was in production was deleted.
        """
        production = versions.find_production(self.model_name)
        state = self.log.state()
        if production is not None and (
            not state.versions.get(production.number, LoggedVersion()).is_moved_outside
            or standing.gate_standing(state, production.number).is_fit
        ):
            return production
        history = production_history(self.log.entries())
        existing = {version.number: version for version in versions.list_versions(self.model_name)}
        for number in reversed(history):
            if number in existing and not state.versions[number].is_deleted:
                return existing[number]
        if not history:
            return None
        raise versions.RegistryError(
            f"{self.model_name} version {history[-1] or 'of the same number'}, which was in "
            "production, was deleted with ZenML's own command"
        )

    def is_last_production(self, predictor: str) -> bool:
        """Return whether the version that our commands put into production last has a predictor.

        It may be deleted: the run that registers its predictor again needs no comparison.
        """
        entries = self.log.entries()
        completed = {entry.detail["intent"] for entry in entries if entry.kind == "done"}
        for intent in (entry for entry in reversed(entries) if entry.number in completed):
            move = intent.detail["changes"][-1]
            if move["to_stage"] == "production":
                # As it was then: its number may have been given again since.
                held = replay(entries[: intent.number]).versions
                return held.get(move["version"], LoggedVersion()).predictor == predictor
        return False

    def _needs_approval(self, version: ModelVersionResponse) -> bool:
        state = self.log.state()
        logged = state.versions.get(version.number, LoggedVersion()).needs_approval
        if logged is None:
            # An older release registered it, which wrote this to ZenML's metadata alone.
            logged = str(version.run_metadata.get(versions.NEEDS_APPROVAL)) == "true"
        return logged or state.policy.manual_approval

    def _require_decider(self, action: str, version: int, who: str | None) -> None:
        state = self.log.state()
        require_approver(state.policy, self.actor, who, action)
        logged = state.versions.get(version, LoggedVersion())
        require_other_than_author(state.policy, self.actor, logged, version, action)

    def _begin(self) -> tuple[AuditEntry, ...]:
        """Log what was changed beside the registry; return the log that a command decides on.

        What is written after it fails if the log has grown meanwhile: a version could have failed
        a gate, or been rejected, between the decision and the write.
        """
        self.record_outside_changes()
        # A cut log must not be continued: its new end would hide the cut.
        return self.log.check()

    def _move(
        self,
        action: str,
        version: int,
        stage: str,
        who: str | None,
        why: str,
        detail: Mapping[str, Any],
        entries: tuple[AuditEntry, ...],
    ) -> TransitionResult:
        result = self._transitions.move(
            action,
            version,
            stage,
            who=who or self.actor.name,
            why=why,
            detail=self.log.identify(detail),
            after=entries,
        )
        self.log.store_head()
        return result
