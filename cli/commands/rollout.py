"""``run.py rollout``: see and steer the steps by which a version gets the requests."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from cli.options import BY_OPTION, JSON_OPTION, MODEL_OPTION, STACK_OPTION, reason_option
from cli.session import open_registry
from cv_factory.config.rollout import describe_step

if TYPE_CHECKING:
    from cv_factory.monitoring.rollout import RolloutDecision, RolloutState


@click.group("rollout")
def command() -> None:
    """See and steer the rollout of a version.

    It begins with: python run.py --pipeline deployment --set 'rollout={}'
    """


def _deciding(function: Callable[..., int]) -> Callable[..., int]:
    """Add the options of a command that decides."""
    for option in (STACK_OPTION, MODEL_OPTION, BY_OPTION):
        function = option(function)
    return function


@command.command("status")
@MODEL_OPTION
@STACK_OPTION
@JSON_OPTION
def status(model_name: str | None, stack: str | None, as_json: bool) -> int:
    """Show the step, and what each measure says."""
    registry = open_registry(model_name, stack)
    from cli.rollouts import find_watcher
    from registry.rollouts import load_rollout, look

    state = load_rollout(registry)
    decision = None if state is None else look(registry, state)
    watcher = find_watcher(registry.model_name)
    if as_json:
        click.echo(json.dumps(_to_dict(state, decision, watcher is not None), indent=2))
    elif state is None or decision is None:
        click.echo(f"{registry.model_name} has no rollout.")
    else:
        click.echo(_describe(state, decision))
        start = f"none: python run.py rollout watch --model {registry.model_name}"
        click.echo(f"  watcher   {start if watcher is None else f'process {watcher.pid}'}")
    return 0


@command.command("advance")
@click.option("--force", is_flag=True, help="Also without enough evidence; never if it is worse.")
@reason_option("advanced by hand")
@_deciding
def advance(
    force: bool, why: str, who: str | None, model_name: str | None, stack: str | None
) -> int:
    """Take the next step; it ends a hold.

    It is refused where the evidence does not suffice, unless --force is given.
    """
    registry = open_registry(model_name, stack)
    from cli.rollouts import act, start_watcher
    from registry.deployments import lock_deployments
    from registry.permissions import TransitionRefusedError
    from registry.rollouts import look, require_rollout

    with lock_deployments(registry.model_name):
        registry.record_outside_changes()
        state = require_rollout(registry)
        # As if it were not held, and whoever advances.
        automatic = state.config.model_copy(update={"advance": "automatic"})
        decision = look(registry, replace(state, config=automatic, hold_reason=None))
        if decision.verdict == "worse" or (decision.action != "advance" and not force):
            raise TransitionRefusedError(
                f"{registry.model_name} version {state.version} stays at its step: "
                f"{decision.reason}"
            )
        reason = why if decision.action == "advance" else f"{why} (without enough evidence)"
        act(registry, state, replace(decision, action="advance"), who, reason)
    if state.config.is_watched and state.next_step != 1.0:
        start_watcher(registry.model_name)
    return 0


@command.command("hold")
@reason_option()
@_deciding
def hold(why: str, who: str | None, model_name: str | None, stack: str | None) -> int:
    """Take no step until `advance`.

    A version that is worse is still rolled back.
    """
    registry = open_registry(model_name, stack)
    from registry.deployments import lock_deployments
    from registry.rollouts import hold_rollout, require_rollout

    with lock_deployments(registry.model_name):
        state = require_rollout(registry)
        hold_rollout(registry, state, who, why)
    click.echo(f"Held: {registry.model_name} version {state.version}, {why}")
    return 0


@command.command("abort")
@reason_option()
@_deciding
def abort(why: str, who: str | None, model_name: str | None, stack: str | None) -> int:
    """End the rollout without promotion.

    All requests go to the version in production again, which golden samples verify.
    """
    registry = open_registry(model_name, stack)
    from registry.deployments import lock_deployments
    from registry.rollouts import abort_rollout, require_rollout

    with lock_deployments(registry.model_name):
        registry.record_outside_changes()
        state = require_rollout(registry)
        serving = abort_rollout(registry, state, who, why)
    name = registry.model_name
    served = f" All requests go to version {', '.join(serving)}." if serving else ""
    click.echo(
        f"Aborted: {name} version {state.version}.{served}\n"
        f"Next: python run.py reject {state.version} --reason WHY --model {name}"
    )
    return 0


@command.command("watch")
@MODEL_OPTION
@STACK_OPTION
def watch(model_name: str | None, stack: str | None) -> int:
    """Act on the evidence until the rollout ends, looking every few seconds."""
    registry = open_registry(model_name, stack)
    from cli.rollouts import watch as watch_rollout

    watch_rollout(registry)
    return 0


def _describe(state: "RolloutState", decision: "RolloutDecision") -> str:
    n_steps = len(state.config.steps)
    step = f"{describe_step(state.step)} (step {state.step_index + 1} of {n_steps})"
    lines = [
        f"Rollout of version {state.version}",
        f"  step      {step}, since {state.since:%Y-%m-%d %H:%M:%S} UTC",
        f"  verdict   {decision.verdict.replace('_', ' ')}",
        *(f"  {c.verdict.replace('_', ' '):19} {c.summary}" for c in decision.comparisons),
        f"  {decision.action:9} {decision.reason}",
    ]
    return "\n".join(lines)


def _to_dict(
    state: "RolloutState | None", decision: "RolloutDecision | None", is_watched: bool
) -> dict[str, Any] | None:
    if state is None or decision is None:
        return None
    return {
        "version": state.version,
        "step": state.step,
        "step_index": state.step_index,
        "steps": state.config.steps,
        "since": state.since.isoformat(),
        "held": state.hold_reason,
        "is_watched": is_watched,
        "decision": asdict(decision),
    }
