"""Checks that a stack is registered as its file declares it, and that its services are usable.

Only reads; each problem names what to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cv_factory.config.suggestion import suggest
from cv_factory.errors import StackError
from stacks.compat.zenml_active_stack import find_foreign_configuration
from stacks.connectivity import check_connectivity, server_mismatch
from stacks.plan import find_stack, plan
from stacks.server import require_server
from stacks.spec import STACKS_DIR, read_spec, stack_names

#: What every pipeline of this project needs of its stack.
REQUIRED_COMPONENTS = (
    "orchestrator",
    "artifact_store",
    "experiment_tracker",
    "data_validator",
    "step_operator",
)


@dataclass(frozen=True)
class Problem:
    """Difference or failure that keeps a stack from working.

    Attributes:
        message: What is wrong, and what to do where no command does it.
        command: The command that ends it; empty where there is none.
    """

    message: str
    command: str = ""


def check_stack(
    name: str, *, directory: Path = STACKS_DIR, environment: Mapping[str, str] | None = None
) -> list[Problem]:
    """Compare a stack with its file, and check the services behind its components.

    Args:
        name: Name of the stack.
        directory: Holds the stack files.
        environment: Fills in ``${VARIABLE}``; None for the environment of this process.

    Returns:
        All problems; empty if the stack is as declared and usable.

    Raises:
        StackError: The file is wrong, variables or packages are missing, or something of the same
            name stands in the way of applying it.
    """
    spec = read_spec(name, directory=directory, environment=environment)
    require_server()
    from zenml.client import Client

    differences = {"created": "is not registered", "updated": "differs from the file"}
    problems = [
        Problem(
            f"{item.kind} {item.name} {differences[item.state]}"
            + (f" ({item.detail})" if item.detail else ""),
            f"python -m stacks apply {name}",
        )
        for item in plan(Client(), spec)
        if item.state != "unchanged"
    ]
    problems += [Problem(str(error)) for error in check_connectivity(spec)]
    if mismatch := server_mismatch():
        problems.append(Problem(f"{mismatch}. Install that of the server, or upgrade it."))
    return problems


def require_applied(name: str | None) -> str:
    """Check that pipelines of this project can run on a stack.

    Reads what is registered and not the stack file: that is cheap, and accepts a stack that the
    user composed by hand.

    Args:
        name: Name of the stack; None for the active one.

    Returns:
        Name of the stack.

    Raises:
        StackError: The stack is not registered or lacks a component, or the ZenML server does not
            answer; says what to do.
    """
    require_server()
    from zenml.client import Client

    client = Client()
    stack = find_stack(client, name) if name else client.active_stack_model
    if stack is None:
        assert name is not None
        if name not in stack_names():
            raise StackError(
                f"There is no stack {name!r}: it is not registered, and there is no file "
                f"stacks/{name}.yaml. {suggest(name, stack_names(), 'stacks')}"
            )
        raise StackError(
            f"The stack {name!r} was never applied. Run: python -m stacks apply {name}"
        )
    present = {str(kind) for kind, parts in stack.components.items() if parts}
    missing = [kind for kind in REQUIRED_COMPONENTS if kind not in present]
    if missing and not name and (file := find_foreign_configuration()):
        raise StackError(
            f"{file} names a stack that your ZenML store ({client.zen_store.url}) does not have: "
            "it was deleted, or a command with another HOME or ZENML_CONFIG_PATH chose it. Choose "
            "one for all who work in this folder: python -m stacks apply local --set. Or name one "
            "in each command (--stack NAME), or work in a clone of your own."
        )
    if missing:
        command = f"apply {stack.name}" if stack.name in stack_names() else "apply local --set"
        raise StackError(
            f"The {'' if name else 'active '}stack {stack.name!r} lacks: {', '.join(missing)}. "
            f"Run: python -m stacks {command}"
        )
    return str(stack.name)
