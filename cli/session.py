"""Helpers of commands and pipeline runners: the stack, a model's registry, the user, files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from cv_factory.errors import ConfigError

if TYPE_CHECKING:
    from zenml.models import ModelVersionResponse

    from registry.model_registry import ModelRegistry


def activate_stack(name: str | None) -> str:
    """Activate a stack in this process, None for the active one, and return its name.

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


def open_registry(
    model_name: str | None, stack: str | None, *, beside_transitions: bool = False
) -> "ModelRegistry":
    """Activate a stack and open a model's registry on it; see ``open_model``.

    Raises:
        CVFactoryError: The stack is not applied, or the model is not registered.
    """
    activate_stack(stack)
    return open_model(model_name, beside_transitions=beside_transitions)


def open_model(model_name: str | None, *, beside_transitions: bool = False) -> "ModelRegistry":
    """Open a model's registry on the active stack; complete or undo an interrupted transition.

    Every command does so, those that only read as well: it writes to ZenML, MLflow and the audit
    log. What was changed beside the registry is printed; commands that change something log it.

    Args:
        model_name: Name of the model; None for the only one.
        beside_transitions: Whether to go on while another process moves versions: for commands
            that move none, and decide nothing by the stages in ZenML, which may be half moved.

    Raises:
        CVFactoryError: The model is not registered, or another process moves versions.
    """
    from registry.model_registry import ModelRegistry
    from registry.stages import TransitionInProgressError
    from registry.versions import resolve_model_name

    registry = ModelRegistry(resolve_model_name(model_name))
    try:
        result = registry.recover()
    except TransitionInProgressError:
        if not beside_transitions:
            raise
    else:
        if result is not None:
            click.echo(str(result), err=True)
    registry.warn_of_outside_changes()
    return registry


def open_version(
    model_name: str | None, number: int | None
) -> "tuple[ModelRegistry, ModelVersionResponse]":
    """Open a model's registry, and return it with a version: of this number, or in production.

    The latter is found by its stage, which may be half moved: another transition refuses it.

    Raises:
        CVFactoryError: The model is not registered, there is no such version, or another process
            moves versions.
    """
    from registry.next_step import find_production

    registry = open_model(model_name, beside_transitions=number is not None)
    return registry, find_production(registry, number)


def list_models(model_name: str | None, stack: str | None) -> list[str]:
    """Activate a stack and return the model of this name, or all registered ones; changes nothing.

    Raises:
        CVFactoryError: The stack is not applied, or no such model is registered.
    """
    activate_stack(stack)
    from registry.versions import model_names, resolve_model_name

    names = model_names()
    return names if model_name is None and names else [resolve_model_name(model_name)]


def current_user() -> str:
    """Return the authenticated user of the ZenML server or, without one, the system's user."""
    from registry.actor import current_actor

    return current_actor().name


def write_file(path: Path, text: str) -> None:
    """Write an output file that an option names.

    Raises:
        ConfigError: It cannot be written.
    """
    with _translate_write_errors(path):
        path.write_text(text, encoding="utf-8")


@contextmanager
def write_new(path: Path) -> Iterator[TextIO]:
    """Open a new output file that an option names, for CSV.

    Raises:
        ConfigError: It exists, or cannot be written.
    """
    with _translate_write_errors(path), path.open("x", newline="", encoding="utf-8") as file:
        yield file


@contextmanager
def make_directory(path: Path) -> Iterator[None]:
    """Make an output directory that an option names, for what the block writes into it.

    Raises:
        ConfigError: It cannot be made or written.
    """
    with _translate_write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        yield


@contextmanager
def _translate_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from None
