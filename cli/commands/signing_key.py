"""``run.py signing-key``: print the public key that verifies statements, or rotate the key."""

import click

from cli.options import STACK_OPTION
from cli.session import activate_stack


@click.command("signing-key")
@click.option(
    "--rotate",
    is_flag=True,
    help="Replace the key. What the keys before signed stays valid.",
)
@click.option(
    "--revoke",
    is_flag=True,
    help="With --rotate: what the keys before signed is refused from now on.",
)
@STACK_OPTION
def command(rotate: bool, revoke: bool, stack: str | None) -> int:
    """Print or rotate the key that signs provenance.

    Prints the public keys whose signatures count, in PEM, the present one first. The private key
    stays in ZenML's secret store; it is created when it is first needed.
    """
    if revoke and not rotate:
        raise click.UsageError("--revoke goes with --rotate: something has to sign.")
    activate_stack(stack)
    from registry.provenance.dsse import format_public_keys, key_id
    from registry.provenance.signing_key import get_or_create_signing_key, rotate_signing_key

    key = rotate_signing_key(revoke=revoke) if rotate else get_or_create_signing_key()
    click.echo(format_public_keys(key.trusted), nl=False)
    if rotate:
        click.echo(
            f"Signs now: {key_id(key.private.public_key())}\n"
            + (
                "No earlier signature counts any more. Sign each version again: "
                "python run.py sign VERSION --model NAME"
                if revoke
                else "Give the public keys to whoever verifies: python run.py signing-key > FILE"
            ),
            err=True,
        )
    return 0
