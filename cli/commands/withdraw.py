"""``run.py withdraw``: end a canary or shadow."""

import click

from cli.options import BY_OPTION, MODEL_OPTION, STACK_OPTION, reason_option
from cli.session import open_registry


@click.command("withdraw")
@click.argument("version", type=click.IntRange(min=1))
@BY_OPTION
@reason_option()
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int, who: str | None, why: str, model_name: str | None, stack: str | None
) -> int:
    """End the canary or shadow of a VERSION.

    All requests go to the version in production again, and its service is deleted. The version
    stays in staging.
    """
    registry = open_registry(model_name, stack)
    from registry.deployments import lock_deployments, withdraw

    name = registry.model_name
    with lock_deployments(name):
        registry.record_outside_changes()
        serving = withdraw(registry, version, who, why)
    click.echo(
        f"Withdrawn: {name} version {version}. All requests go to version {', '.join(serving)}."
    )
    if registry.stages().get(version) == "staging":
        click.echo(f"Next: python run.py reject {version} --reason WHY --model {name}")
    return 0
