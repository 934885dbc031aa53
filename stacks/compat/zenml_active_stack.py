"""ZenML 0.98.0 reads the name of a stack in ``ZENML_ACTIVE_STACK_ID`` once, then parses a UUID."""

import os


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
