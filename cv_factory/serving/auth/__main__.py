"""Makes and revokes API keys: ``python -m cv_factory.serving.auth add|revoke|list FILE [NAME]``."""

import sys
from pathlib import Path

import click

from cv_factory.errors import CVFactoryError
from cv_factory.serving.auth.api_keys import add_key, read_keys, revoke_key

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def main() -> None:
    """Manage the API keys of a service: FILE holds their hashes."""


@main.command()
@_FILE
@click.argument("name")
@click.option("--admin", is_flag=True, help="May also read protected pages.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Images a second.")
def add(file: Path, name: str, admin: bool, rate: float | None) -> None:
    """Make a key called NAME and print it: it is shown this once."""
    click.echo(add_key(file, name, ["admin"] if admin else ["predict"], rate))


@main.command()
@_FILE
@click.argument("name")
def revoke(file: Path, name: str) -> None:
    """Refuse the key called NAME; a running service notices within a second."""
    revoke_key(file, name)


@main.command("list")
@_FILE
def show(file: Path) -> None:
    """List the names, roles and limits."""
    for key in read_keys(file).keys:
        limit = f"{key.images_per_second:g} images/s" if key.images_per_second else "-"
        state = "revoked" if key.revoked else "valid"
        click.echo(f"{key.name:<24}{state:<10}{','.join(key.roles):<16}{limit}")


if __name__ == "__main__":
    try:
        main(standalone_mode=True)
    except CVFactoryError as problem:
        click.echo(f"Error: {problem}", err=True)
        sys.exit(problem.exit_code)
