"""``run.py approve``: a person signs a version off."""

import click

from cli.session import MODEL_OPTION, STACK_OPTION, open_registry, words


@click.command("approve")
@click.argument("version", type=click.IntRange(min=1))
@click.option("--by", "who", callback=words, required=True, metavar="NAME", help="Who approves.")
@click.option("--reason", "why", callback=words, required=True, help="Why.")
@MODEL_OPTION
@STACK_OPTION
def command(version: int, who: str, why: str, model_name: str | None, stack: str | None) -> int:
    """Approve a VERSION for production; the audit log keeps who and why."""
    registry = open_registry(model_name, stack)
    entry = registry.approve(version, who, why)
    click.echo(
        f"{who} approved {registry.model_name} version {version} "
        f"(predictor {entry.detail['predictor'][:16]}, audit log entry {entry.number}).\n"
        f"Next: python run.py promote {version} --model {registry.model_name}"
    )
    return 0
