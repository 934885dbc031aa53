"""``run.py trace``: print the lineage of a version, and verify it."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import MODEL_OPTION, STACK_OPTION
from cli.session import open_registry, write_file

if TYPE_CHECKING:
    from rich.tree import Tree

    from registry.model_registry import ModelRegistry
    from registry.provenance.trace import TraceCheck, TraceLink


def _parse_subject(context: click.Context, parameter: click.Parameter, value: str) -> int | str:
    """Parse a version's number or a prediction's id, a UUID."""
    if value.isdecimal() and int(value) > 0:
        return int(value)
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither the number of a version nor the id of a prediction"
        ) from None


@click.command("trace")
@click.argument("subject", metavar="VERSION|PREDICTION_ID", callback=_parse_subject)
@click.option("--verify", is_flag=True, help="Compute every hash again from the stored artifacts.")
@click.option(
    "--reproduce", is_flag=True, help="Train again and compare the bytes of the predictor."
)
@click.option(
    "--provenance",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the provenance, an in-toto statement, to this file.",
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the prediction log.  [default: those of the model's services]",
)
@MODEL_OPTION
@STACK_OPTION
def command(
    subject: int | str,
    verify: bool,
    reproduce: bool,
    provenance: Path | None,
    predictions: Path | None,
    model_name: str | None,
    stack: str | None,
) -> int:
    """Print and verify what a VERSION was made of.

    PREDICTION_ID stands for the version that answered that prediction.
    """
    registry = open_registry(model_name, stack)
    from rich.console import Console

    from registry.provenance import trace

    version = subject
    if isinstance(version, str):
        version = _find_version(version, registry, predictions)
    version_trace = trace.collect_trace(registry, version)
    chain = render_chain(registry.model_name, version, version_trace.links)
    Console(highlight=False, soft_wrap=True).print(chain)
    if provenance is not None:
        write_file(provenance, json.dumps(version_trace.provenance, indent=2) + "\n")
        click.echo(f"Provenance written to {provenance}.")
    checks = [*(trace.verify(version_trace) if verify else ())]
    checks += [trace.reproduce(version_trace)] if reproduce else []
    if checks:
        click.echo(describe_checks(checks))
    return 0 if all(check.ok for check in checks) else 1


def _find_version(prediction_id: str, registry: "ModelRegistry", folder: Path | None) -> int:
    """Return the version that answered a prediction, according to the prediction log."""
    from registry.prediction_lookup import find_logged_prediction

    prediction = find_logged_prediction(registry.model_name, prediction_id, folder)
    click.echo(f"Prediction {prediction_id}: {prediction['label']} ({prediction['time']})")
    return int(prediction["version"])


def render_chain(name: str, version: int, links: Sequence["TraceLink"]) -> "Tree":
    """Return the chain as a tree in which each link is a branch of the one before."""
    from rich.text import Text
    from rich.tree import Tree

    tree = branch = Tree(Text(f"{name} version {version}", style="bold"))
    for link in links:
        branch = branch.add(Text(link.name, style="bold"))
        for key, value in link.facts.items():
            branch.add(Text(f"{key}: {value}"))
    return tree


def describe_checks(checks: Sequence["TraceCheck"]) -> str:
    """Return one line per check, and how many agree."""
    lines = []
    for check in checks:
        mark = click.style("ok", fg="green") if check.ok else click.style("DIFFERS", fg="red")
        lines.append(f"{mark:<8} {check.name}: {check.detail}")
    n_ok = sum(check.ok for check in checks)
    return "\n".join([*lines, f"{n_ok} of {len(checks)} checks agree."])
