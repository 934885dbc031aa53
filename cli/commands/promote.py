"""``run.py promote``: move a staged version to production."""

import click

from cli.options import BY_OPTION, MODEL_OPTION, STACK_OPTION, validate_audit_text
from cli.session import open_registry


@click.command("promote")
@click.argument("version", type=click.IntRange(min=1))
@BY_OPTION
@click.option(
    "--reason",
    "why",
    callback=validate_audit_text,
    default="promoted by hand",
    show_default=True,
    help="Reason, for the audit log.",
)
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int, who: str | None, why: str, model_name: str | None, stack: str | None
) -> int:
    """Promote a staged VERSION to production.

    The version that was in production is archived.
    """
    registry = open_registry(model_name, stack)
    click.echo(str(registry.promote(version, who, why)))
    return 0
