"""Options of a ZenML pipeline from the configuration's section ``zenml`` and the active stack."""

from typing import Any

from zenml.client import Client
from zenml.config import ResourceSettings
from zenml.enums import ExecutionMode

from cli.pipeline_config import ZenMLConfig
from stacks.images import step_image


def pipeline_options(zenml: ZenMLConfig) -> dict[str, Any]:
    """Translate the ``zenml`` section to arguments of ``Pipeline.with_options``."""
    # A run's True overrides the False of steps that are never cached; its default is True anyway.
    options: dict[str, Any] = {} if zenml.enable_cache else {"enable_cache": False}
    stack = Client().active_stack
    if stack.container_registry is not None:
        options["settings"] = {"docker": step_image()}
    if ExecutionMode.FAIL_FAST in stack.orchestrator.supported_execution_modes:
        # The exception of the failing step is raised here, and no further step is started.
        options["execution_mode"] = ExecutionMode.FAIL_FAST
    if zenml.run_name:
        options["run_name"] = zenml.run_name
    if zenml.tags:
        options["tags"] = zenml.tags
    if zenml.resources:
        options["steps"] = {
            name: {"settings": {"resources": ResourceSettings(**r.model_dump(exclude_none=True))}}
            for name, r in zenml.resources.items()
        }
    return options
