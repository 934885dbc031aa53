"""Runs a ZenML pipeline and waits for its end."""

from typing import Any

import click
from zenml.client import Client
from zenml.config import ResourceSettings
from zenml.enums import ExecutionMode
from zenml.models import PipelineRunResponse
from zenml.pipelines.pipeline_definition import Pipeline

from cli.library_logging import quiet_libraries
from cli.pipeline_config import ZenMLConfig
from cv_factory.errors import CVFactoryError
from stacks.images import step_image
from stacks.run_errors import PIPELINE_RUN_ERRORS


def run_to_end(
    pipeline: Pipeline, zenml: ZenMLConfig, *arguments: Any, debug: bool
) -> PipelineRunResponse | None:
    """Run a pipeline with its arguments.

    Returns:
        The finished run; None if it was only submitted, which is printed.

    Raises:
        CVFactoryError: A step refused or failed.
    """
    if not debug:
        quiet_libraries()
    configured = pipeline.with_options(**pipeline_options(zenml))
    try:
        run = configured(*arguments)
    except PIPELINE_RUN_ERRORS as error:
        if debug:
            raise
        raise CVFactoryError(f"The run failed: {error} (--debug shows the traceback)") from error
    if run is None or not run.status.is_finished:
        click.echo("The run was submitted; watch it in the dashboard.")
        return None
    return Client().get_pipeline_run(run.id)


def pipeline_options(zenml: ZenMLConfig) -> dict[str, Any]:
    """Translate the ``zenml`` section to arguments of ``Pipeline.with_options``."""
    options: dict[str, Any] = {"enable_cache": zenml.enable_cache}
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
