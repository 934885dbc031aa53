"""What the registry's commands share: which model, who asks, and what was left half done."""

import getpass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from registry.model_registry import ModelRegistry

MODEL_OPTION = click.option(
    "--model", "model_name", metavar="NAME", help="Which model, where there are several."
)
STACK_OPTION = click.option("--stack", metavar="NAME", help="Use this stack, not the active one.")


def open_registry(model_name: str | None, stack: str | None) -> "ModelRegistry":
    """Open a model's registry on a stack, and finish or take back what was interrupted.

    Raises:
        CVFactoryError: The stack is not applied, or the model is not registered.
    """
    from stacks.check import require_applied
    from stacks.startup import activate_only_stack_integrations, use_stack

    require_applied(stack)
    if stack:
        use_stack(stack)
    activate_only_stack_integrations()
    return open_model(model_name)


def open_model(model_name: str | None) -> "ModelRegistry":
    """Open a model's registry on the stack of this process; see ``open_registry``.

    Raises:
        CVFactoryError: The model is not registered.
    """
    from registry.model_registry import ModelRegistry
    from registry.versions import only_model

    registry = ModelRegistry(model_name or only_model())
    outcome = registry.recover()
    if outcome is not None:
        click.echo(str(outcome))
    return registry


def user() -> str:
    """Return the name of whoever runs this command."""
    return getpass.getuser()
