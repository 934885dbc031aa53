"""``run.py trace``: where a version came from, and whether that is still true."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.session import MODEL_OPTION, STACK_OPTION, open_registry, write_file

if TYPE_CHECKING:
    from registry.trace import Check, Link


@click.command("trace")
@click.argument("version", type=click.IntRange(min=1))
@click.option("--verify", is_flag=True, help="Derive every hash again from what is stored.")
@click.option("--reproduce", is_flag=True, help="Train again and compare the bytes.")
@click.option(
    "--provenance",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the provenance (in-toto statement) to this file.",
)
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int,
    verify: bool,
    reproduce: bool,
    provenance: Path | None,
    model_name: str | None,
    stack: str | None,
) -> int:
    """Print what a VERSION was made of, from stored lineage alone."""
    registry = open_registry(model_name, stack)
    from registry import trace

    found = trace.collect(registry, version)
    _print_chain(registry.model_name, version, found.links)
    if provenance is not None:
        write_file(provenance, json.dumps(found.provenance, indent=2) + "\n")
        click.echo(f"Provenance written to {provenance}.")
    checks = [*(trace.verify(found) if verify else ())]
    checks += [trace.reproduce(found)] if reproduce else []
    return _print_checks(checks)


def _print_chain(name: str, version: int, links: tuple["Link", ...]) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(f"{name} version {version}", style="bold"))
    branch = tree
    for link in links:
        branch = branch.add(Text(link.name, style="bold"))
        for key, value in link.facts.items():
            branch.add(Text(f"{key}: {value}"))
    Console(highlight=False, soft_wrap=True).print(tree)


def _print_checks(checks: list["Check"]) -> int:
    for check in checks:
        mark = click.style("ok", fg="green") if check.ok else click.style("DIFFERS", fg="red")
        click.echo(f"{mark:<8} {check.name}: {check.detail}")
    if not checks:
        return 0
    wrong = sum(not check.ok for check in checks)
    click.echo(f"{len(checks) - wrong} of {len(checks)} checks agree.")
    return 1 if wrong else 0
