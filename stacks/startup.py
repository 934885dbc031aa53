"""What a process does before it runs a pipeline, to import no more than its stack needs."""

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker
    from zenml.models import StackResponse

#: Modules of MLflow with an ``autolog``, of those that ZenML 0.98 names in a function.
_AUTOLOGGED = (
    *("tensorflow", "xgboost", "lightgbm", "statsmodels"),
    *("spark", "sklearn", "pytorch"),
)


def use_stack(name: str) -> None:
    """Make a stack the active one for this process and its children alone.

    The stack that the user has activated stays as it is.

    Args:
        name: An existing stack.

    Raises:
        KeyError: There is no such stack.
    """
    from zenml.client import Client
    from zenml.constants import ENV_ZENML_ACTIVE_STACK_ID

    stack = Client().get_stack(name, allow_name_prefix_match=False)
    # The id, not the name: ZenML 0.98 parses the variable as a UUID on every second look.
    os.environ[ENV_ZENML_ACTIVE_STACK_ID] = str(stack.id)


def activate_only_stack_integrations() -> None:
    """Make ZenML activate, in this process, only the integrations of the active stack, quietly.

    Before every run, and in every step's own process, ZenML imports each integration whose
    packages happen to be installed (torch, scikit-learn, BentoML, SageMaker, ...: seconds) so that
    its materializers are known. Nothing here needs them: every artifact of ours names its own
    materializer, and the components of the stack are imported by source when they are used. What
    does need activation are the integrations that the stack's own flavors come from, which may
    register service connectors and materializers of theirs; those stay.

    After every tracked step ZenML's MLflow tracker likewise imports torch and all other frameworks
    whose autologging it then switches off: here, only of those that a step imported.

    This replaces a method of ZenML's registry object and one of its MLflow tracker, and changes
    nothing on disk.
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
    from zenml.integrations.registry import integration_registry

    for name in sorted(names):
        integration = integration_registry.integrations[name]
        if integration.check_installation():
            integration.activate()
    if "mlflow" in names:
        from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker

        tracker: Any = MLFlowExperimentTracker
        tracker.disable_autologging = _disable_autologging_of_imported


def _disable_autologging_of_imported(tracker: "MLFlowExperimentTracker") -> None:
    """Switch off the autologging of the frameworks that MLflow was asked for in this process."""
    for framework in _AUTOLOGGED:
        module = sys.modules.get(f"mlflow.{framework}")
        if module is not None:
            module.autolog(disable=True)
