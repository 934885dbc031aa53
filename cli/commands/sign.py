"""``run.py sign``: sign the statement of a version that is not signed, or with a revoked key."""

import click

from cli.options import BY_OPTION, MODEL_OPTION, STACK_OPTION, reason_option
from cli.session import open_registry


@click.command("sign")
@click.argument("version", type=click.IntRange(min=1))
@BY_OPTION
@reason_option("it was not signed")
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int, who: str | None, why: str, model_name: str | None, stack: str | None
) -> int:
    """Sign the provenance of a registered VERSION.

    Every hash is computed again first. Training signs each version that it registers: this is for
    versions from before, for runs that could not use the key, and for after its revocation.
    """
    registry = open_registry(model_name, stack)
    from registry.provenance.sign_stored import sign_stored_version

    signed_with = sign_stored_version(registry, version, who, why)
    click.echo(
        f"{registry.model_name} version {version} is signed with the key\n    {signed_with}\n"
        f"Next: python run.py verify {version} --model {registry.model_name}"
    )
    return 0
