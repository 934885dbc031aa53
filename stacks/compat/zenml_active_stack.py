"""Cures of how ZenML 0.98.0 reads and writes the active stack.

It reads the name of a stack in ``ZENML_ACTIVE_STACK_ID`` once, then parses a UUID. And each
``Client()`` whose store lacks the stack in ``.zen/config.yaml`` writes its own default stack there.
"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cv_factory.progress import quiet_loggers

if TYPE_CHECKING:
    from zenml.client import Client


def use_stack(name: str) -> None:
    """Make a stack the active one for this process and its children alone, by its id.

    The stack that the user has activated stays as it is.

    Args:
        name: An existing stack.

    Raises:
        KeyError: There is no such stack.
    """
    from zenml.client import Client
    from zenml.constants import ENV_ZENML_ACTIVE_STACK_ID

    stack = Client().get_stack(name, allow_name_prefix_match=False)
    os.environ[ENV_ZENML_ACTIVE_STACK_ID] = str(stack.id)


def keep_active_stack() -> None:
    """Let no command change the active stack of a checkout but one that activates a stack.

    A client whose store lacks the stack takes its own default stack, for itself. The file is read
    by all who work in the folder, also with another HOME. Call it before the first ``Client()``.
    """
    from zenml.client import Client

    Client._sanitize_config = _sanitize_config  # type: ignore[assignment, method-assign]


def find_foreign_configuration() -> Path | None:
    """Return ``.zen/config.yaml`` if it names a stack that the client's store does not have."""
    from zenml.client import Client

    client = Client()
    config, folder = client._config, client.config_directory
    if config is None or folder is None or config._active_stack is None:
        return None
    is_foreign = config.active_stack_id != config._active_stack.id
    return folder / "config.yaml" if is_foreign else None


def _sanitize_config(client: "Client") -> None:
    config = client._config
    if config is None:
        return
    with quiet_loggers(logging.ERROR, "zenml.zen_stores.base_zen_store"):
        project, stack = client.zen_store.validate_active_config(
            config.active_project_id, config.active_stack_id, config_name="repo"
        )
    if config.active_stack_id in (None, stack.id):
        config.set_active_stack(stack)
        if project is not None:
            config.set_active_project(project)
    else:  # assignments to private attributes are not written
        config._active_stack, config._active_project = stack, project
