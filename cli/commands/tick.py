"""``run.py tick``: one turn of the loop that monitors, retrains and rolls out."""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import (
    BY_OPTION,
    JSON_OPTION,
    MODEL_OPTION,
    ROOT,
    STACK_OPTION,
    RunOptions,
    validate_audit_text,
)
from cli.session import open_registry

if TYPE_CHECKING:
    from cv_factory.config.loop import LoopConfig
    from cv_factory.monitoring.decisions import LoopState
    from registry.loop import Loop, TickResult
    from registry.model_registry import ModelRegistry


@click.command("tick")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Configuration of the loop.  [default: configs/loop.yaml]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting, such as retrain.cooldown_hours=24; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Explain the decision; change nothing.")
@click.option(
    "--resume",
    is_flag=True,
    help="Let a loop retrain again that has stopped after failed challengers; needs --reason.",
)
@click.option(
    "--reason", "why", callback=validate_audit_text, metavar="TEXT", help="Reason of --resume."
)
@click.option("--data-dir", envvar="CV_FACTORY_DATA", metavar="DIR", help="As of a training.")
@BY_OPTION
@MODEL_OPTION
@STACK_OPTION
@JSON_OPTION
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    resume: bool,
    why: str | None,
    data_dir: str | None,
    who: str | None,
    model_name: str | None,
    stack: str | None,
    as_json: bool,
) -> int:
    """Monitor if it is due, decide, and act at most once.

    The action is a training, a rollout's start or next step, a rollback, or none. It may be called
    at any time, by anything, twice, and may be killed: docs/monitoring/loop.md.
    """
    if resume != (why is not None):
        raise click.UsageError("--resume and --reason go together.")
    settings = _read_config(config, overrides, model_name)
    registry = open_registry(settings.model.name, stack)
    options = RunOptions("", stack=stack, data_dir=data_dir)
    loop = _open_loop(registry, settings, options, is_explained=dry_run)
    if resume:
        loop.resume(who, str(why))
        click.echo(f"The loop of {registry.model_name} retrains again.")
        return 0
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        result = loop.explain() if dry_run else _run(loop)
    if as_json:
        click.echo(json.dumps(_to_dict(registry.model_name, result, dry_run=dry_run), indent=2))
    elif result is not None:
        click.echo(describe_tick(registry.model_name, result, dry_run=dry_run))
    return 0


def _read_config(
    file: Path | None, overrides: tuple[str, ...], model_name: str | None
) -> "LoopConfig":
    from cv_factory.config.loader import load_config
    from cv_factory.config.loop import LoopConfig

    if model_name is not None:
        overrides = (*overrides, f"{LoopConfig.MODEL_NAME_KEY}={json.dumps(model_name)}")
    return load_config(LoopConfig, file or ROOT / "configs" / "loop.yaml", overrides=overrides)


def _open_loop(
    registry: "ModelRegistry", config: "LoopConfig", options: RunOptions, *, is_explained: bool
) -> "Loop":
    from cli.loop_actions import PipelineActions
    from registry.loop import Entries, Loop
    from registry.loop_state import read_state

    actions = PipelineActions(registry, config, options)

    def read(entries: Entries) -> "LoopState":
        now = None if is_explained else datetime.now(UTC)
        return read_state(registry, config, actions.count_labels, entries, now=now)

    return Loop(registry.model_name, registry.log, read, actions, config)


def _run(loop: "Loop") -> "TickResult | None":
    """Run a tick; None where another process is at it already."""
    from cv_factory.deployment.lock import BusyError
    from registry.audit.log import LogConflictError

    try:
        return loop.tick()
    except (BusyError, LogConflictError) as error:
        click.echo(f"Nothing was done: {error}", err=True)
        return None


def describe_tick(model_name: str, result: "TickResult", *, dry_run: bool) -> str:
    """Return the decision with its reason and, of a dry run, every condition."""
    decision, monitoring = result.decision, result.monitoring
    words = decision.action.replace("_", " ")
    lines = [f"{click.style(model_name, bold=True)}: {words}. {decision.reason}"]
    if dry_run or monitoring.is_met:
        verb = "would run first" if dry_run else "was run first"
        lines.append(
            f"  monitoring {verb if monitoring.is_met else 'is not due'}: {monitoring.reason}"
        )
    if result.outcome is not None:
        lines.append(f"  retraining: {result.outcome.replace('_', ' ')}")
    if dry_run:
        lines += [
            f"  {'yes' if c.is_met else 'no ':3} {c.rule:18} {c.reason}" for c in decision.checks
        ]
        lines.append("Nothing was changed (--dry-run).")
    return "\n".join(lines)


def _to_dict(model_name: str, result: "TickResult | None", *, dry_run: bool) -> dict[str, Any]:
    values = {} if result is None else asdict(result)
    return {"model": model_name, "is_dry_run": dry_run, "is_done": result is not None, **values}
