"""A tick of the loop: reads, decides, acts at most once, and logs its intent before it trains.

It may come late, twice or at the same time as another one, and may be killed anywhere. The decision
holds for the log that it was made on: where the log has grown since, nothing is begun. What became
of a training whose process was killed is read from the log and from ZenML by the name of its run.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from cv_factory.config.loop import LoopConfig
from cv_factory.errors import CVFactoryError
from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.decisions import (
    Check,
    Decision,
    LoopState,
    Outcome,
    check_monitoring,
    decide,
)
from registry import process_owner, retrainings
from registry.audit.log import AuditEntry, LogConflictError
from registry.registry_log import RegistryLog

logger = logging.getLogger(__name__)
_RESUME = "python run.py tick --resume --reason WHY"
Entries = tuple[AuditEntry, ...]


class LoopActions(Protocol):
    """What a tick lets happen. Each may be killed, and repeated by a later tick."""

    def monitor(self) -> None:
        """Run the monitoring pipeline."""

    def train(self, run_name: str) -> None:
        """Run the training pipeline under this name, and register what it trains."""

    def lock(self) -> AbstractContextManager[None]:
        """Return the lock with which this process alone deploys the model."""

    def roll_back(self, why: str) -> None:
        """Put the version before the present one into production, under the lock."""

    def start_rollout(self, version: int, why: str) -> None:
        """Start the rollout of a version in staging, under the lock."""

    def continue_rollout(self) -> None:
        """Let the rollout in progress decide on its next step."""

    def send(self, alerts: Sequence[Alert]) -> None:
        """Send alerts; one about an incident that is open already is not sent again."""

    def find_run_outcome(self, run_name: str) -> Outcome:
        """Return what became of a run of which the log tells no registration."""


@dataclass(frozen=True)
class TickResult:
    """What a tick did.

    Attributes:
        monitoring: Whether the monitoring pipeline was due.
        decision: What the tick decided.
        outcome: What became of the retraining that it began, or of one that was interrupted.
    """

    monitoring: Check
    decision: Decision
    outcome: Outcome | None = None


class Loop:
    """Loop of one model."""

    def __init__(
        self,
        model_name: str,
        log: RegistryLog,
        read_state: Callable[[Entries], LoopState],
        actions: LoopActions,
        config: LoopConfig,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Wire the loop.

        Args:
            model_name: Name of the registered model.
            log: Its audit log.
            read_state: Returns the state that a log, and what else is stored, tell.
            actions: What ticks let happen.
            config: Of the loop.
            now: The present time, UTC.
        """
        self._model_name, self._log, self._read_state = model_name, log, read_state
        self._actions, self._config, self._now = actions, config, now

    def explain(self) -> TickResult:
        """Return what a tick would decide now, without monitoring first; changes nothing."""
        state = self._read_state(self._log.check())
        now = self._now()
        return TickResult(
            check_monitoring(state, self._config, now), decide(state, self._config, now)
        )

    def tick(self) -> TickResult:
        """Monitor if it is due, decide, and act at most once.

        Raises:
            LogConflictError: Another process was faster; nothing was begun.
            CVFactoryError: An action failed, or monitoring did; then the action was carried out.
        """
        monitoring = check_monitoring(
            self._read_state(self._log.check()), self._config, self._now()
        )
        failure = self._monitor() if monitoring.is_met else None
        recovered = None
        while (intent := self._find_interrupted(entries := self._log.check())) is not None:
            recovered = self._close(intent, "the process that trained had ended")
        decision = decide(self._read_state(entries), self._config, self._now())
        outcome = self._act(decision, entries)
        if failure is not None:
            raise failure
        return TickResult(monitoring, decision, outcome or recovered)

    def resume(self, who: str | None, why: str) -> None:
        """Let the loop retrain again after it has stopped: earlier failures do not count."""
        self._log.append(self._log.check(), retrainings.RESUMED, who, why, {})
        self._actions.send([self._stop_alert("resolved", why)])

    def _monitor(self) -> CVFactoryError | None:
        """Run the monitoring pipeline; its failure holds up no rollout."""
        try:
            self._actions.monitor()
        except CVFactoryError as error:
            logger.warning("Monitoring of %s failed: %s", self._model_name, error)
            return error
        return None

    def _act(self, decision: Decision, entries: Entries) -> Outcome | None:
        match decision.action:
            case "continue_rollout":
                self._actions.continue_rollout()
            case "rollback" | "start_rollout":
                with self._actions.lock():
                    self._deploy(decision, entries)
            case "stop_retraining":
                # The alert first: it is sent once, however often a tick is killed in between.
                self._actions.send([self._stop_alert("firing", decision.reason)])
                self._log.append(entries, retrainings.STOPPED, None, decision.reason, {})
            case "retrain":
                return self._retrain(decision, entries)
        return None

    def _deploy(self, decision: Decision, entries: Entries) -> None:
        """Roll back or start a rollout, if nothing has happened since it was decided.

        Raises:
            LogConflictError: The log has grown, such as by a rollback of another process.
        """
        if self._log.check() != entries:
            raise LogConflictError(
                f"Another process changed {self._model_name} at the same time: nothing was begun."
            )
        if decision.action == "rollback":
            self._actions.roll_back(decision.reason)
        elif decision.version is not None:
            self._actions.start_rollout(decision.version, decision.reason)

    def _retrain(self, decision: Decision, entries: Entries) -> Outcome:
        now = self._now()
        run_name = f"retraining-{self._model_name}-{now:%Y%m%dT%H%M%S}-{len(entries) + 1}"
        detail = {
            "run_name": run_name,
            "version": decision.version,
            "owner": process_owner.current_process(),
        }
        with retrainings.active_run(run_name):
            intent = self._log.append(entries, retrainings.INTENDED, None, decision.reason, detail)
            try:
                self._actions.train(run_name)
            except CVFactoryError as error:
                self._close(intent, " ".join(str(error).split()), has_failed=True)
                raise
        return self._close(intent, "the training run ended")

    def _find_interrupted(self, entries: Entries) -> AuditEntry | None:
        """Return the intent of a retraining whose process ended before it logged the end."""
        intent = retrainings.find_unfinished(entries)
        if intent is None:
            return None
        is_running = self._read_state(entries).retrainings[-1].outcome == "running"
        return None if is_running else intent

    def _close(self, intent: AuditEntry, why: str, *, has_failed: bool = False) -> Outcome:
        """Log the end of a retraining, unless another process has done so."""
        run_name = intent.detail["run_name"]
        while True:
            entries = self._log.check()
            outcome, version = retrainings.find_result(run_name, entries)
            if outcome is None:
                outcome = "failed" if has_failed else self._actions.find_run_outcome(run_name)
            if outcome == "running" or retrainings.find_unfinished(entries) != intent:
                return outcome
            if outcome != "not_started":
                self._actions.send([self._end_alert(outcome, version, run_name)])
            detail = {"intent": intent.number, "outcome": outcome}
            if version is not None:
                detail["version"] = version
            with suppress(LogConflictError):
                self._log.append(entries, retrainings.FINISHED, None, why, detail)

    def _end_alert(self, outcome: Outcome, version: int | None, run_name: str) -> Alert:
        model = self._model_name
        summaries: dict[str, str] = {
            "passed": f"Version {version}, which the loop trained, passed its gates",
            "refused": f"Version {version}, which the loop trained, did not pass its gates",
            "inconclusive": f"The gates could not judge version {version}, which the loop trained",
            "unchanged": "Training again gave a version that is registered already",
            "failed": "The training that the loop began failed",
            "interrupted": "The training that the loop began was interrupted",
        }
        return Alert(
            incident=f"retraining/{model}",
            status="resolved" if outcome == "passed" else "firing",
            severity="warning",
            summary=f"{model}: {summaries[outcome]}.",
            detail=f"Run {run_name}. See: python run.py tick --dry-run --model {model}",
            labels={"model": model},
        )

    def _stop_alert(self, status: Literal["firing", "resolved"], reason: str) -> Alert:
        model = self._model_name
        return Alert(
            incident=f"retraining_stopped/{model}",
            status=status,
            severity="critical",
            summary=f"{model}: {reason}.",
            detail=f"Once the cause is gone: {_RESUME} --model {model}",
            labels={"model": model},
        )
