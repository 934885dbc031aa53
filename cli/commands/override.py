"""``run.py override``: let a version pass although a gate failed, on the record."""

import click

from cli.options import BY_OPTION, MODEL_OPTION, STACK_OPTION, reason_option
from cli.session import open_registry


@click.command("override")
@click.argument("version", type=click.IntRange(min=1))
@click.option("--gate", required=True, metavar="TEXT", help="Failed gate, as the card words it.")
@BY_OPTION
@reason_option()
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int,
    gate: str,
    who: str | None,
    why: str,
    model_name: str | None,
    stack: str | None,
) -> int:
    """Override one failed gate of a VERSION.

    Audit log, model card and /model-info say who did, and why. It counts for this verdict alone:
    a gate that fails anew is overridden anew.
    """
    registry = open_registry(model_name, stack)
    from registry.next_step import next_command

    entry = registry.override(version, gate, who, why)
    name, standing = registry.model_name, registry.gate_standing(version)
    click.echo(
        f"{entry.who} overrode the gate '{gate}' of {name} version {version} "
        f"(audit log entry {entry.number})."
    )
    if standing.failed:
        click.echo(f"Still failed: {'; '.join(standing.failed)}.")
    else:
        click.echo(f"Next: {next_command(registry, registry.get_version(version))}")
    return 0
