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
    """Put the previous production version back; the present one is archived.

    Where the model is deployed, the previous version is deployed again: verified before it is given
    the requests, and without losing one.
    """
    registry = open_registry(model_name, stack)
    from registry.deployments import deployed_bundle, lock_deployments

    with lock_deployments(registry.model_name):
        deployed = deployed_bundle(registry.model_name)
        if deployed is None:
            click.echo(str(registry.rollback(who or user(), why, to)))
            return 0
        from cli.deployment_run import roll_back

        return roll_back(registry, registry.rollback_target(to), deployed, who or user(), why)
