"""``run.py rollback``: the version that was in production before goes back there."""

import click

from cli.session import BY_OPTION, MODEL_OPTION, STACK_OPTION, open_registry, user, words


@click.command("rollback")
@click.option("--to", type=click.IntRange(min=1), help="An earlier version than the last one.")
@BY_OPTION
@click.option("--reason", "why", callback=words, default="rolled back by hand", help="Why.")
@MODEL_OPTION
@STACK_OPTION
def command(
    to: int | None, who: str | None, why: str, model_name: str | None, stack: str | None
) -> int:
    """Put the previous production version back; the present one is archived."""
    registry = open_registry(model_name, stack)
    click.echo(str(registry.rollback(who or user(), why, to)))
    return 0
