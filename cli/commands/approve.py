"""``run.py approve``: record a person's approval of a version."""

import click

from cli.options import BY_OPTION, MODEL_OPTION, STACK_OPTION, reason_option
from cli.session import open_registry


@click.command("approve")
@click.argument("version", type=click.IntRange(min=1))
@BY_OPTION
@reason_option()
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int, who: str | None, why: str, model_name: str | None, stack: str | None
) -> int:
    """Approve a VERSION that passed its gates for production.

    The audit log stores who approved it, and why.
    """
    registry = open_registry(model_name, stack)
    from registry.next_step import next_command

    entry = registry.approve(version, who, why)
    click.echo(
        f"{entry.who} approved {registry.model_name} version {version} "
        f"(predictor {entry.detail['predictor'][:16]}, audit log entry {entry.number}).\n"
        f"Next: {next_command(registry, registry.get_version(version))}"
    )
    return 0
