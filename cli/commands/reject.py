"""``run.py reject``: take a version out of staging."""

import click

from cli.options import BY_OPTION, MODEL_OPTION, STACK_OPTION, reason_option
from cli.session import open_registry


@click.command("reject")
@click.argument("version", type=click.IntRange(min=1))
@BY_OPTION
@reason_option()
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int, who: str | None, why: str, model_name: str | None, stack: str | None
) -> int:
    """Take a VERSION out of staging.

    No training run stages it again; ``run.py stage VERSION`` does.
    """
    registry = open_registry(model_name, stack)
    click.echo(str(registry.reject(version, who, why)))
    click.echo(f"Undo: python run.py stage {version} --model {registry.model_name}")
    return 0
