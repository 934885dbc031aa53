"""``run.py stage``: put a version that passed its gates into staging again."""

import click

from cli.options import BY_OPTION, MODEL_OPTION, STACK_OPTION, reason_option
from cli.session import open_registry


@click.command("stage")
@click.argument("version", type=click.IntRange(min=1))
@BY_OPTION
@reason_option("staged by hand")
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int, who: str | None, why: str, model_name: str | None, stack: str | None
) -> int:
    """Put a VERSION that passed its gates into staging.

    It may be archived or rejected; the version that was in staging is archived.
    """
    registry = open_registry(model_name, stack)
    from registry.next_step import next_command

    click.echo(str(registry.stage(version, who, why)))
    click.echo(f"Next: {next_command(registry, registry.get_version(version))}")
    return 0
