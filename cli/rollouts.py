"""Rollouts at work: each look at the evidence, what follows from it, and the watcher."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import ROOT
from cv_factory.config.rollout import RolloutConfig, describe_step
from cv_factory.deployment.deployment import Deployment
from cv_factory.errors import CVFactoryError
from cv_factory.monitoring.rollout import RolloutDecision, RolloutState
from cv_factory.processes import daemon

if TYPE_CHECKING:
    from registry.model_registry import ModelRegistry

#: Seconds between two looks of the watcher: a breach is to be answered within a minute.
LOOK_INTERVAL_S = 5.0


def start_rollout(deployment: Deployment, config: RolloutConfig, who: str | None, why: str) -> None:
    """Record that a deployment is the first step of a rollout, and start its watcher."""
    from registry.model_registry import ModelRegistry
    from registry.rollouts import begin_rollout

    name = deployment.model_name
    state = begin_rollout(ModelRegistry(name), deployment, config, who, why)
    steps = ", ".join(describe_step(step) for step in config.steps)
    click.echo(f"\nRollout of {name} version {state.version}: {steps}.")
    if config.is_watched:
        process = start_watcher(name)
        click.echo(f"Watched by process {process.pid}: {daemon.log_file(watcher_folder(name))}")


def step_rollout(registry: "ModelRegistry") -> RolloutDecision | None:
    """Look at the evidence of a model's rollout once, and do what follows from it.

    Safe to call at any time, by several processes, and after one that was killed.

    Returns:
        What was decided; None where there is no rollout.

    Raises:
        BusyError: Another process deploys the model.
        CVFactoryError: The evidence cannot be read, or what was decided cannot be done.
    """
    from registry.deployments import lock_deployments
    from registry.rollouts import apply_step, load_rollout, look

    with lock_deployments(registry.model_name):
        state = load_rollout(registry)
        if state is None:
            return None
        decision = look(registry, state)
        if decision.action != "roll_back":
            apply_step(registry, state)  # where an earlier process was killed in between
        act(registry, state, decision, None, f"automatic: {decision.reason}")
    return decision


def act(
    registry: "ModelRegistry",
    state: RolloutState,
    decision: RolloutDecision,
    who: str | None,
    why: str,
) -> None:
    """Do what was decided; the caller holds ``lock_deployments``.

    Raises:
        CVFactoryError: It cannot be done; the next look tries again.
    """
    from registry.rollouts import abort_rollout, hold_rollout, take_step

    title = f"{registry.model_name} version {state.version}"
    match decision.action:
        case "roll_back":
            serving = abort_rollout(registry, state, who, why, decision)
            click.echo(
                f"Rolled back: {title}. All requests go to version {', '.join(serving)}.\n{why}"
            )
        case "hold":
            hold_rollout(registry, state, who, why, decision)
            click.echo(f"Held: {title}, {why}")
        case "advance" if state.next_step == 1.0:
            _promote(registry, state, decision, who, why)
        case "advance":
            taken = take_step(registry, state, decision, who, why)
            click.echo(f"Advanced: {title} to {describe_step(taken.step)}.")


def _promote(
    registry: "ModelRegistry",
    state: RolloutState,
    decision: RolloutDecision,
    who: str | None,
    why: str,
) -> None:
    """Take the last step: the version is deployed, verified and promoted as any other."""
    from cli.pipelines.deployment import change_production
    from registry.rollouts import finish_rollout, hold_rollout

    try:
        change_production(registry, state.version, who, why, is_rollback=False)
    except CVFactoryError as error:
        # Such as an approval that it lacks: not to be tried again every few seconds.
        hold_rollout(registry, state, who, " ".join(str(error).split()), decision)
        raise
    finish_rollout(registry, state, decision, who, why)


def watch(registry: "ModelRegistry", interval_s: float = LOOK_INTERVAL_S) -> None:
    """Look at a model's rollout, and act, until it ends; what fails is tried again."""
    from sqlalchemy.exc import SQLAlchemyError
    from zenml.exceptions import ZenMLBaseException

    from stacks.run_errors import PIPELINE_RUN_ERRORS

    passing: tuple[type[Exception], ...] = (
        CVFactoryError,
        ZenMLBaseException,
        SQLAlchemyError,
        *PIPELINE_RUN_ERRORS,
    )
    last = ""
    while True:
        try:
            decision = step_rollout(registry)
            if decision is None:
                return
            news, line = str(decision.action), f"{decision.action}: {decision.reason}"
        except passing as error:
            news = line = f"error: {error}"
        if news != last:
            click.echo(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}")
            last = news
        time.sleep(interval_s)


def watcher_folder(model_name: str) -> Path:
    """Return the folder of a model's watcher, with its log."""
    from zenml.config.global_config import GlobalConfiguration

    stores = Path(GlobalConfiguration().local_stores_path)
    return stores / "deployments" / f"{model_name}.watcher"


def find_watcher(model_name: str) -> daemon.Daemon | None:
    """Return the process that watches a model's rollout; None if none does."""
    return daemon.load_running(watcher_folder(model_name))


def start_watcher(model_name: str) -> daemon.Daemon:
    """Start the process that watches a model's rollout, unless it runs."""
    from zenml.client import Client

    running = find_watcher(model_name)
    if running is not None:
        return running
    folder = watcher_folder(model_name)
    folder.mkdir(parents=True, exist_ok=True)
    stack = Client().active_stack_model.name
    command = ["rollout", "watch", "--model", model_name, "--stack", stack]
    return daemon.start(
        [sys.executable, str(ROOT / "run.py"), *command],
        folder,
        str(folder),
        0,
        cwd=ROOT,
        environment=os.environ,  # as this command: it deploys, too
    )
