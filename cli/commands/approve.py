"""``run.py approve``: record a person's approval of a version."""

import click

from cli.options import MODEL_OPTION, STACK_OPTION, validate_audit_text
from cli.session import open_registry


@click.command("approve")
@click.argument("version", type=click.IntRange(min=1))
@click.option(
    "--by",
    "who",
    callback=validate_audit_text,
    required=True,
    metavar="NAME",
    help="Who approves, for the audit log.",
)
@click.option(
    "--reason",
    "why",
    callback=validate_audit_text,
    required=True,
    help="Reason, for the audit log.",
)
@MODEL_OPTION
@STACK_OPTION
def command(version: int, who: str, why: str, model_name: str | None, stack: str | None) -> int:
    """Approve a VERSION for production.

    The audit log stores who approved it, and why.
    """
    registry = open_registry(model_name, stack)
    entry = registry.approve(version, who, why)
    click.echo(
        f"{who} approved {registry.model_name} version {version} "
        f"(predictor {entry.detail['predictor'][:16]}, audit log entry {entry.number}).\n"
        f"Next: python run.py promote {version} --model {registry.model_name}"
    )
    return 0
