"""``run.py status``: what is in production, in staging and served, and whether they agree."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cli.options import JSON_OPTION, LISTED_MODEL_OPTION, STACK_OPTION
from cli.session import list_models
from cv_factory.config.rollout import describe_step

if TYPE_CHECKING:
    from registry.status import ModelStatus, RolloutStatus, StageHolder


@click.command("status")
@LISTED_MODEL_OPTION
@STACK_OPTION
@JSON_OPTION
def command(model_name: str | None, stack: str | None, as_json: bool) -> int:
    """Show what is in production, in staging and served.

    The exit code is 1 where these do not agree, or cannot be read, and while versions are moved.
    """
    names = list_models(model_name, stack)
    from registry.status import load_status

    statuses = [load_status(name) for name in names]
    if as_json:
        click.echo(json.dumps([status.to_dict() for status in statuses], indent=2))
    else:
        click.echo("\n\n".join(describe_status(status) for status in statuses))
    return 0 if all(status.agrees for status in statuses) else 1


def describe_status(status: "ModelStatus") -> str:
    """Return the status of a model as lines."""
    lines = [
        click.style(status.model_name, bold=True),
        f"  production  {_describe_holder(status.production)}",
        f"  staging     {_describe_holder(status.staging)}",
    ]
    lines += [f"  served      {line}" for line in _describe_services(status)]
    if status.rollout is not None:
        lines.append(f"  rollout     {_describe_rollout(status.rollout)}")
    lines += [f"  {line}" for line in describe_problems(status)]
    return "\n".join(lines)


def describe_problems(status: "ModelStatus") -> list[str]:
    """Return one line for a transition in progress, and for each thing that does not agree."""
    lines = []
    if status.transition is not None and status.transition.is_running:
        mark = click.style("IN PROGRESS", fg="yellow", bold=True)
        lines.append(f"{mark} {status.transition}: look again in a moment.")
    mark = click.style("DISAGREES", fg="red", bold=True)
    return [*lines, *(f"{mark}   {problem}" for problem in status.problems)]


def _describe_rollout(rollout: "RolloutStatus") -> str:
    number = f"step {rollout.number} of {rollout.n_steps}"
    line = f"version {rollout.version}, {describe_step(rollout.step)} ({number})"
    since = rollout.since.replace("T", " ").removesuffix("+00:00")
    held = "" if rollout.hold_reason is None else f"\n              held: {rollout.hold_reason}"
    return f"{line}\n              since {since} UTC{held}"


def _describe_holder(holder: "StageHolder | None") -> str:
    if holder is None:
        return "none"
    return f"version {holder.version}{_describe_origin(holder.since, holder.who)}"


def _describe_services(status: "ModelStatus") -> Iterator[str]:
    """Yield one line per service; one line where there is none."""
    for service in status.services:
        state = f"{service.given} at {service.url}"
        state += "" if service.is_running else ", does not run"
        yield f"version {service.version}, {state}{_describe_origin(service.since, service.who)}"
    for other in status.elsewhere:
        yield f"version {other.version} by the model deployer {other.flavor} (stack {other.stack})"
    if not status.services and not status.elsewhere:
        is_deployable = status.production is not None or status.staging is not None
        command = f": python run.py --pipeline deployment --model {status.model_name}"
        yield f"no{command if is_deployable else ''}"


def _describe_origin(since: str | None, who: str | None) -> str:
    if since is None:
        return ""
    return f"\n              since {since.replace('T', ' ').removesuffix('+00:00')} UTC by {who}"
