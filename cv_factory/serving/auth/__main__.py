"""Command line for API keys: ``python -m cv_factory.serving.auth add|revoke|list FILE [NAME]``."""

import sys
from pathlib import Path

import click

from cv_factory.errors import print_error
from cv_factory.serving.auth.api_keys import add_key, read_keys, revoke_key
from cv_factory.serving.auth.principal import Role

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def main() -> None:
    """Manage the API keys of a service; FILE stores their hashes."""


@main.command()
@_FILE
@click.argument("name")
@click.option("--admin", is_flag=True, help="Grant the role admin, which opens protected pages.")
@click.option(
    "--feedback", is_flag=True, help="Grant the role feedback in place of predict: give labels."
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Limit in images a second.")
def add(file: Path, name: str, admin: bool, feedback: bool, rate: float | None) -> None:
    """Create a key called NAME and print it; it is not stored and cannot be shown again."""
    role: Role = "admin" if admin else "feedback" if feedback else "predict"
    click.echo(add_key(file, name, [role], rate))


@main.command()
@_FILE
@click.argument("name")
def revoke(file: Path, name: str) -> None:
    """Revoke the key called NAME; a running service rejects it within a second."""
    revoke_key(file, name)


@main.command("list")
@_FILE
def list_keys(file: Path) -> None:
    """List names, states, roles and limits of the keys."""
    for key in read_keys(file).keys:
        limit = f"{key.images_per_second:g} images/s" if key.images_per_second else "-"
        state = "revoked" if key.revoked else "valid"
        click.echo(f"{key.name:<24}{state:<10}{','.join(key.roles):<16}{limit}")


if __name__ == "__main__":
    try:
        main(standalone_mode=True)
    except Exception as error:  # noqa: BLE001 (a fault of the program is raised again)
        sys.exit(print_error(error))
