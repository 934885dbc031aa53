"""The flavors ``sagemaker_sized``: SageMaker jobs on the cheapest instance that a step fits on.

ZenML's own orchestrator and step operator run every step on one instance type. These select one
from a list, and put every job into one network under one key. ``stacks.flavors.sagemaker_jobs``
implements them and imports the SageMaker SDK.
"""

from typing import TYPE_CHECKING

from zenml.integrations.aws.flavors import (
    SagemakerOrchestratorFlavor,
    SagemakerStepOperatorFlavor,
)

from stacks.compat.sagemaker_sdk import silence_sdk
from stacks.flavors.sagemaker_config import SizedOrchestratorConfig, SizedStepOperatorConfig

if TYPE_CHECKING:
    from stacks.flavors.sagemaker_jobs import SizedOrchestrator, SizedStepOperator


class SizedOrchestratorFlavor(SagemakerOrchestratorFlavor):
    """Flavor of the orchestrator."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "sagemaker_sized"

    @property
    def config_class(self) -> type[SizedOrchestratorConfig]:
        """Configuration class."""
        return SizedOrchestratorConfig

    @property
    def implementation_class(self) -> "type[SizedOrchestrator]":
        """Implementation class."""
        silence_sdk()
        from stacks.flavors.sagemaker_jobs import SizedOrchestrator

        return SizedOrchestrator


class SizedStepOperatorFlavor(SagemakerStepOperatorFlavor):
    """Flavor of the step operator."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "sagemaker_sized"

    @property
    def config_class(self) -> type[SizedStepOperatorConfig]:
        """Configuration class."""
        return SizedStepOperatorConfig

    @property
    def implementation_class(self) -> "type[SizedStepOperator]":
        """Implementation class."""
        silence_sdk()
        from stacks.flavors.sagemaker_jobs import SizedStepOperator

        return SizedStepOperator
