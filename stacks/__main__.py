"""``python -m stacks``: applies, checks and lists the stack files."""

import os
import sys
from typing import TYPE_CHECKING

import click

from cv_factory.errors import print_error
from cv_factory.serving.http_client import bypass_proxies_on_loopback

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"created": "green", "updated": "yellow", "unchanged": "dim"}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Register and check the stacks that stacks/NAME.yaml declares: where pipelines run."""


_OUTPUTS_OPTION = click.option(
    "--from-cloudformation",
    "cloudformation",
    metavar="STACK",
    help="Take variables that are not set from the outputs of this CloudFormation stack.",
)


@cli.command()
@click.argument("name")
@click.option("--set", "activate", is_flag=True, help="Also make it the active stack.")
@_OUTPUTS_OPTION
def apply(name: str, activate: bool, cloudformation: str | None) -> None:
    """Create or update the stack and all it consists of; change nothing that is as declared."""
    from stacks.apply import apply_stack

    console = _console()
    states = []
    environment = _environment(cloudformation)
    for item in apply_stack(name, activate=activate, environment=environment):
        states.append(item.state)
        console.print(
            f"  {item.kind:<20}{item.name:<24}[{_STYLES[item.state]}]{item.state:<11}[/]", end=""
        )
        console.print(item.detail, style="dim", markup=False)
    changed = sum(state != "unchanged" for state in states)
    console.print(
        f"Stack [bold]{name}[/] is ready: "
        + (
            f"{changed} of {len(states)} items changed."
            if changed
            else "nothing had to be changed."
        )
    )


@cli.command()
@click.argument("name")
@_OUTPUTS_OPTION
def check(name: str, cloudformation: str | None) -> int:
    """Compare the stack with its file, and check its services; change nothing.

    Exit code 2 if something differs, is missing or denies access.
    """
    from stacks.check import check_stack

    problems = check_stack(name, environment=_environment(cloudformation))
    for problem in problems:
        click.echo(f"  {problem.message}")
    if problems:
        for command in dict.fromkeys(p.command for p in problems if p.command):
            click.echo(f"Run: {command}")
        return 2
    click.echo(f"Stack {name} is within reach, and as stacks/{name}.yaml declares it.")
    return 0


@cli.command(name="list")
def list_stacks() -> None:
    """List the stack files."""
    from stacks.spec import STACKS_DIR, stack_names

    for name in stack_names():
        lines = (STACKS_DIR / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        comment = next((line[2:] for line in lines if line.startswith("# ")), "")
        click.echo(f"  {name:<20}{comment}")


def main() -> int:
    """Run the command line and return the exit code: 0 done, 2 wrong usage or stack."""
    if not sys.stdout.isatty():
        # ZenML colors its log lines also where they are written to a file.
        os.environ.setdefault("ZENML_LOGGING_COLORS_DISABLED", "true")
    bypass_proxies_on_loopback()
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except click.Abort:
        click.echo("Interrupted.", err=True)
        return 130
    except Exception as error:  # noqa: BLE001 (a fault of the program is raised again)
        return print_error(error)
    return code if isinstance(code, int) else 0


def _environment(cloudformation: str | None) -> dict[str, str]:
    """Return the variables that fill in a stack file."""
    if cloudformation is None:
        return dict(os.environ)
    from stacks.cloudformation import stack_outputs

    return {**stack_outputs(cloudformation), **{k: v for k, v in os.environ.items() if v}}


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
