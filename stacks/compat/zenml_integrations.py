"""ZenML 0.98.0 activates every integration whose packages are installed, not those of the stack.

It does so before every run and in every step's own process, which imports torch, scikit-learn,
BentoML, SageMaker, ...: seconds. This project needs none of that: every artifact names its own
materializer, and components of the stack are imported by source when they are used.
"""

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zenml.models import StackResponse


def activate_only_stack_integrations() -> None:
    """Make ZenML activate, in this process, only the integrations of the active stack's flavors.

    These may register service connectors and materializers of theirs. Replaces a method of ZenML's
    registry object and one of its MLflow tracker; changes nothing on disk.
    """
    from zenml.client import Client
    from zenml.integrations.registry import integration_registry

    names = stack_integrations(Client().active_stack_model)
    integration_registry.activate_integrations = partial(  # type: ignore[method-assign]
        _activate, names
    )


def stack_integrations(stack: "StackResponse") -> frozenset[str]:
    """Return the integrations that the flavors of a stack's components come from."""
    flavors = [component.flavor for parts in stack.components.values() for component in parts]
    return frozenset(
        flavor.integration
        for flavor in flavors
        if flavor.integration and flavor.integration not in ("built-in", "custom")
    )


def _activate(names: frozenset[str]) -> None:
    from importlib import import_module

    from zenml.integrations.registry import integration_registry

    from stacks.compat.zenml_autologging import import_no_framework_after_steps

    for name in sorted(names):
        # ``integration_registry.integrations`` imports all of them, and with them numba.
        import_module(f"zenml.integrations.{name}")
        integration = integration_registry._integrations[name]
        if integration.check_installation():
            integration.activate()
    if "mlflow" in names:
        import_no_framework_after_steps()
