"""``run.py rollback``: put the previous production version back into production."""

import click

from cli.options import BY_OPTION, MODEL_OPTION, STACK_OPTION, reason_option
from cli.session import open_registry


@click.command("rollback")
@click.option(
    "--to",
    type=click.IntRange(min=1),
    help="Version to go back to.  [default: the previous production version]",
)
@BY_OPTION
@reason_option("rolled back by hand")
@MODEL_OPTION
@STACK_OPTION
def command(
    to: int | None, who: str | None, why: str, model_name: str | None, stack: str | None
) -> int:
    """Put the previous production version back.

    The present one is archived. If the model is deployed, the previous version is deployed again:
    it is verified before it gets requests, and no request is lost.
    """
    registry = open_registry(model_name, stack)
    from cli.pipelines.deployment import change_production
    from registry.deployments import lock_deployments

    with lock_deployments(registry.model_name):
        registry.record_outside_changes()
        target = registry.rollback_target(to)
        return change_production(registry, target, who, why, is_rollback=True)
