"""What the registry's commands share: which model, who asks, and what was left half done."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cv_factory.errors import ConfigError

if TYPE_CHECKING:
    from registry.model_registry import ModelRegistry


def words(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check who or why: not blank, and nothing that could look like another entry of the log."""
    if value is not None and not value.strip():
        raise click.BadParameter("say something: the audit log keeps it")
    if value is not None and not value.isprintable():
        raise click.BadParameter("the audit log keeps one line of printable characters")
    return value and value.strip()


MODEL_OPTION = click.option(
    "--model", "model_name", metavar="NAME", help="Which model, where there are several."
)
BY_OPTION = click.option(
    "--by",
    "who",
    callback=words,
    metavar="NAME",
    help="Who decides this.  [default: the system's user]",
)
STACK_OPTION = click.option("--stack", metavar="NAME", help="Use this stack, not the active one.")


def open_registry(model_name: str | None, stack: str | None) -> "ModelRegistry":
    """Open a model's registry on a stack, and finish or take back what was interrupted.

    Raises:
        CVFactoryError: The stack is not applied, or the model is not registered.
    """
    activate_stack(stack)
    return open_model(model_name)


def activate_stack(name: str | None) -> str:
    """Make a stack, or the active one, that of this process, and return its name.

    Raises:
        StackError: It is not applied, or lacks a component.
    """
    from stacks.check import require_applied
    from stacks.compat.zenml_active_stack import use_stack
    from stacks.compat.zenml_integrations import activate_only_stack_integrations

    stack = require_applied(name)
    if name:
        use_stack(name)
    activate_only_stack_integrations()
    return stack


def open_model(model_name: str | None) -> "ModelRegistry":
    """Open a model's registry on the stack of this process; see ``open_registry``.

    Raises:
        CVFactoryError: The model is not registered.
    """
    from registry.model_registry import ModelRegistry
    from registry.versions import resolve_model_name

    registry = ModelRegistry(resolve_model_name(model_name))
    outcome = registry.recover()
    if outcome is not None:
        click.echo(str(outcome))
    return registry


def user() -> str:
    """Return the name of whoever runs this command."""
    return getpass.getuser()


def write_file(path: Path, text: str) -> None:
    """Write a file that was named on the command line.

    Raises:
        ConfigError: It can not be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} can not be written: {error.strerror}.") from None
