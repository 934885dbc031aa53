"""``run.py promote``: move a staged version to production."""

import click

from cli.options import BY_OPTION, MODEL_OPTION, STACK_OPTION, reason_option
from cli.session import open_registry


@click.command("promote")
@click.argument("version", type=click.IntRange(min=1))
@BY_OPTION
@reason_option("promoted by hand")
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int, who: str | None, why: str, model_name: str | None, stack: str | None
) -> int:
    """Promote a staged VERSION to production.

    The version that was in production is archived. If the model is deployed, VERSION is deployed in
    its place: it is verified before it gets requests, and no request is lost.
    """
    registry = open_registry(model_name, stack)
    from cli.pipelines.deployment import change_production
    from registry.deployments import lock_deployments, next_version

    with lock_deployments(registry.model_name):
        registry.record_outside_changes()
        number = next_version(registry, version, who).number
        return change_production(registry, number, who, why, is_rollback=False)
