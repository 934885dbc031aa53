"""Ticks of a real loop in processes that are killed, on the real stores of a project.

The training is a fake that trains nothing: a ZenML run of one step. One parent imports everything
and opens nothing; each tick runs in a fork of it. Run as ``python -m tests.support.loop_kills
OUTPUT``.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from zenml import pipeline, step

from cv_factory.config.loop import LoopConfig
from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.decisions import Evidence, LabelCounts, LoopState, Outcome
from cv_factory.monitoring.report import Recommendation
from registry.audit.log import AuditEntry
from tests.support.registry_races import start, wait

MODEL = "digits"
#: Where a tick is killed: before or after what, which tick first.
POINTS = ("intent", "training", "step", "end")
_MODULES = ("registry.loop", "registry.loop_state", "stacks.compat.zenml_integrations")
_CONFIG = LoopConfig.model_validate(
    {"retrain": {"cooldown_hours": 0.0, "budget_trainings": 100, "max_failed_challengers": 100}}
)


@step(enable_cache=False)
def fake_training(kill: bool) -> int:
    """Train nothing."""
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


@pipeline(enable_cache=False)
def fake_training_run(kill: bool) -> None:
    """Train nothing, in a run that ZenML records."""
    fake_training(kill)


class FakeActions:
    """Actions of a tick that is killed at a point; nothing is monitored, deployed or sent."""

    def __init__(self, point: str) -> None:
        self._point = point

    def monitor(self) -> None:
        """Do nothing."""

    def train(self, run_name: str) -> None:
        """Run the fake pipeline under this name."""
        _kill_at("training", self._point)
        fake_training_run.with_options(run_name=run_name)(self._point == "step")

    def lock(self) -> AbstractContextManager[None]:
        """Return no lock."""
        return nullcontext()

    def roll_back(self, why: str) -> None:
        """Do nothing."""

    def start_rollout(self, version: int, why: str) -> None:
        """Do nothing."""

    def continue_rollout(self) -> None:
        """Do nothing."""

    def send(self, alerts: Sequence[Alert]) -> None:
        """Be killed where the end is about to be logged."""
        _kill_at("end", self._point)

    def find_run_outcome(self, run_name: str) -> Outcome:
        """Ask ZenML."""
        from registry.loop_state import find_run_outcome

        return find_run_outcome(run_name)


def main(output: Path) -> None:
    """Kill a tick at each point, run two more, and write what the log and ZenML hold then."""
    for name in _MODULES:
        importlib.import_module(name)
    results: list[Any] = [_wait(start(_promote, output))]
    for point in POINTS:
        killed = _wait(start(partial(_tick, point), output))
        recovered = [_wait(start(partial(_tick, "none"), output)) for _ in range(2)]
        results.append({"point": point, "killed": killed, "recovered": recovered})
    seen = wait(start(_look, output))
    output.write_text(json.dumps({"ticks": results, "seen": json.loads(seen["output"])}))


def _wait(started: tuple[int, Path]) -> int:
    return int(wait(started)["status"])


def _promote() -> int:
    """Put version 1 into production."""
    from registry.model_registry import ModelRegistry

    ModelRegistry(MODEL).promote(1, "the test", "to have one")
    return 0


def _tick(point: str) -> int:
    """Run a tick of a model whose labels prove harm."""
    from registry.loop import Loop
    from registry.loop_state import read_log
    from registry.model_registry import ModelRegistry
    from stacks.compat.zenml_integrations import activate_only_stack_integrations

    activate_only_stack_integrations()
    registry, actions = ModelRegistry(MODEL), FakeActions(point)
    evidence = Evidence(datetime.now(UTC), Recommendation("retrain", ("a test",)))

    def read(entries: tuple[AuditEntry, ...]) -> LoopState:
        state = read_log(entries, 3600.0, actions.find_run_outcome)
        return replace(
            state, evidence=evidence, monitored=evidence.time, labels=LabelCounts(100, 20)
        )

    _kill_before_intent(registry, point)
    Loop(MODEL, registry.log, read, actions, _CONFIG).tick()
    return 0


def _kill_before_intent(registry: Any, point: str) -> None:
    append = registry.log.append

    def gated(*arguments: Any) -> AuditEntry:
        _kill_at("intent", point)
        entry: AuditEntry = append(*arguments)
        return entry

    registry.log.append = gated


def _kill_at(here: str, point: str) -> None:
    if here == point:
        os.kill(os.getpid(), signal.SIGKILL)


def _look() -> int:
    """Print the retrainings of the log, and the runs that ZenML knows."""
    from zenml.client import Client

    from registry.model_registry import ModelRegistry

    entries = ModelRegistry(MODEL).log.check()
    runs = Client().list_pipeline_runs(pipeline="fake_training_run", size=100).items
    print(
        json.dumps(
            {
                "intents": [
                    e.detail["run_name"] for e in entries if e.kind == "retraining_intended"
                ],
                "ends": [e.detail["outcome"] for e in entries if e.kind == "retraining_finished"],
                "runs": sorted(run.name for run in runs),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main(Path(sys.argv[1]))
