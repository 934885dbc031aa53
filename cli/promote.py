"""``run.py promote``: a staged version goes to production."""

import click

from cli.session import BY_OPTION, MODEL_OPTION, STACK_OPTION, open_registry, user, words


@click.command("promote")
@click.argument("version", type=click.IntRange(min=1))
@BY_OPTION
@click.option("--reason", "why", callback=words, default="promoted by hand", help="Why.")
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int, who: str | None, why: str, model_name: str | None, stack: str | None
) -> int:
    """Put a staged VERSION into production; the one that was there is archived."""
    registry = open_registry(model_name, stack)
    click.echo(str(registry.promote(version, who or user(), why)))
    return 0
