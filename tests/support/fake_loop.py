"""A fake model with a fake clock and a training that trains nothing, for ticks of a real loop.

The audit log holds what the real one would. Each write to it, and each step of an action, is a
point at which a tick can be killed, or another one can run.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from cv_factory.config.loop import LoopConfig
from cv_factory.evaluation.gate_verdict import GateVerdict, Status
from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.decisions import (
    Evidence,
    LabelCounts,
    LoopState,
    Outcome,
    find_label_cutoff,
)
from cv_factory.monitoring.report import Recommendation
from registry.actor import SYSTEM, Actor
from registry.audit.log import AuditEntry, LogConflictError
from registry.audit.state import replay
from registry.loop import Loop, TickResult
from registry.loop_state import read_log
from registry.registry_log import RegistryLog

MODEL = "digits"
Entries = tuple[AuditEntry, ...]


class Killed(BaseException):
    """Stands for the process being killed: nothing may catch it."""


class FakeAuditLog:
    """Audit log in memory without hashes: a thousand ticks read it thousands of times."""

    def __init__(self, model: "FakeModel") -> None:
        self._model = model
        self._entries: Entries = ()

    def entries(self) -> Entries:
        """Return the entries."""
        return self._entries

    def append(
        self, after: Entries, kind: str, who: str, why: str, detail: dict[str, Any]
    ) -> AuditEntry:
        """Add an entry, unless the log has grown."""
        self._model.point()
        if len(after) != len(self._entries):
            raise LogConflictError("another process was faster")
        when = self._model.now.isoformat(timespec="seconds")
        entry = AuditEntry(len(after) + 1, "", kind, who, when, why, detail)
        self._entries = (*self._entries, entry)
        self._model.point()
        return entry


class FakeModel:
    """One model with version 1 in production, and the actions of its loop.

    Attributes:
        now: The clock.
        recommendation: Of the next monitoring report.
        labels: Times of the trusted labels, sorted.
        n_test: Number of test images from the field.
        passes_gates: Whether the next version does.
        is_judged: Whether its gates have something to hold against their bounds.
        is_better: Whether the next rollout ends with a promotion.
        point: Called at each write and within each action.
        trainings: Names of the runs that began.
        rollouts: Versions whose rollout began.
        alerts: All that were sent.
    """

    def __init__(self, config: LoopConfig | None = None) -> None:
        self.config = config or LoopConfig()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.recommendation = Recommendation("none")
        self.labels: list[datetime] = []
        self.n_test = 20
        self.passes_gates = self.is_better = self.is_judged = True
        self.point: Callable[[], None] = lambda: None
        self.trainings: list[str] = []
        self.rollouts: list[int] = []
        self.alerts: list[Alert] = []
        self._is_finished: dict[str, bool] = {}
        self._reports: list[tuple[int, Evidence]] = []
        mirror: Any = SimpleNamespace(log_head=lambda: None, store_log_head=lambda *_: None)
        log: Any = FakeAuditLog(self)
        self.log = RegistryLog(MODEL, log, mirror)
        self.log.actor = Actor(SYSTEM, "ada")
        self._register("run-1")
        self._move("promote", 1, "production")

    @property
    def loop(self) -> Loop:
        """The loop as a new process opens it."""
        return Loop(MODEL, self.log, self.read_state, self, self.config, lambda: self.now)

    def tick(self) -> TickResult:
        """Run a tick as a new process would."""
        return self.loop.tick()

    def kinds(self) -> list[str]:
        """Return the kinds of the log's entries."""
        return [entry.kind for entry in self.log.entries()]

    def read_state(self, entries: Entries) -> LoopState:
        """Return the state: the log's, the last report on production, and the new labels."""
        lease_s = self.config.retrain.max_hours * 3600
        state = read_log(entries, lease_s, self.find_run_outcome)
        own = [report for version, report in self._reports if version == state.production]
        assert state.trained is not None
        cutoff = find_label_cutoff(state.retrainings, state.trained)
        return replace(
            state,
            evidence=own[-1] if own else None,
            monitored=self._reports[-1][1].time if self._reports else None,
            labels=LabelCounts(len(self.labels) - bisect_right(self.labels, cutoff), self.n_test),
        )

    def promote_new(self, version: int) -> None:
        """Let a person train and promote a version, the next by number."""
        assert self._register(f"run-{version}") == version
        self._move("promote", version, "production")

    def monitor(self) -> None:
        """Make a report with the present recommendation; a rollback needs a predecessor."""
        self.point()
        stages = replay(self.log.entries()).stages
        production = next(n for n, stage in stages.items() if stage == "production")
        recommendation = self.recommendation
        if recommendation.action == "rollback" and "archived" not in stages.values():
            recommendation = Recommendation("none")
        self._reports.append((production, Evidence(self.now, recommendation)))

    def train(self, run_name: str) -> None:
        """Pretend to train, and register a version of it."""
        assert run_name not in self.trainings, "ZenML refuses a second run of that name"
        self.trainings.append(run_name)
        self._is_finished[run_name] = False
        self.point()
        number = self._register(run_name)
        self.point()
        if self.passes_gates:
            self._move("stage", number, "staging", run_name)
        self._is_finished[run_name] = True

    def lock(self) -> AbstractContextManager[None]:
        """Return no lock: the log alone keeps ticks apart, as those of two machines."""
        self.point()
        return nullcontext()

    def roll_back(self, why: str) -> None:
        """Put the version before into production."""
        stages = replay(self.log.entries()).stages
        self._move("rollback", max(n for n, s in stages.items() if s == "archived"), "production")

    def start_rollout(self, version: int, why: str) -> None:
        """Begin a rollout, unless there is one."""
        entries = self.log.entries()
        if read_log(entries, 0.0, self.find_run_outcome).rollout is None:
            detail = {"version": version, "service": "id", "rollout": {}}
            self.log.append(entries, "rollout_started", None, why, detail)
            self.rollouts.append(version)
            self.point()

    def continue_rollout(self) -> None:
        """End the rollout, one way or the other."""
        entries = self.log.entries()
        version = read_log(entries, 0.0, self.find_run_outcome).rollout
        assert version is not None
        kind = "rollout_finished" if self.is_better else "rollout_aborted"
        if self.is_better and replay(entries).stages[version] != "production":
            self._move("promote", version, "production")
        elif not self.is_better and replay(entries).stages[version] == "staging":
            self._move("reject", version, "none")
        self.log.append(self.log.entries(), kind, None, "it ended", {"version": version})

    def send(self, alerts: Sequence[Alert]) -> None:
        """Keep the alerts."""
        self.point()
        self.alerts += alerts

    def find_run_outcome(self, run_name: str) -> Outcome:
        """Return what became of a run, as ZenML would know it."""
        if run_name not in self._is_finished:
            return "not_started"
        return "unchanged" if self._is_finished[run_name] else "interrupted"

    def _register(self, who: str) -> int:
        entries = self.log.entries()
        number = len(replay(entries).versions) + 1
        status: Status = "passed" if self.passes_gates else "failed"
        observed = 0.9 if self.is_judged else None
        detail = {
            "version": number,
            "predictor": f"predictor-{number}",
            "verdicts": [asdict(GateVerdict("accuracy", "accuracy", 0.95, observed, status, ""))],
        }
        self.log.append(entries, "registered", who, "a run evaluated a new predictor", detail)
        return number

    def _move(self, action: str, version: int, to_stage: str, who: str | None = None) -> None:
        """Move a version and log it, as ``StageTransitions`` does; never killed in between."""
        entries = self.log.entries()
        stages = replay(entries).stages
        changes = [
            {"version": n, "from_stage": s, "to_stage": "archived"}
            for n, s in stages.items()
            if s == to_stage and s in ("staging", "production")
        ]
        changes.append({"version": version, "from_stage": stages[version], "to_stage": to_stage})
        point, self.point = self.point, lambda: None
        detail = {"action": action, "changes": changes}
        intent = self.log.append(entries, "intent", who, action, detail)
        end = {"intent": intent.number, "action": action}
        self.log.append(self.log.entries(), "done", who, action, end)
        self.point = point
        self.point()
