"""Runs the training pipeline on the active stack and prints what a person wants to know of it."""

from typing import Any

import click
from zenml.client import Client
from zenml.config import ResourceSettings
from zenml.enums import ExecutionMode
from zenml.models import PipelineRunResponse

from cli.console import quiet_tracebacks
from cli.summary import print_summary
from cv_factory.config import TrainingPipelineConfig, ValidationPipelineConfig
from cv_factory.errors import CVFactoryError
from stacks.failures import run_failures
from stacks.images import step_image


def run_training(
    config: TrainingPipelineConfig,
    source_fingerprint: str,
    lineage: dict[str, str],
    *,
    debug: bool,
) -> int:
    """Run the pipeline, print its summary and return the exit code.

    Raises:
        CVFactoryError: A step refused or failed.
    """
    from pipelines.training import training

    if not debug:
        quiet_tracebacks()
    configured = training.with_options(**pipeline_options(config))
    try:
        run = configured(config, source_fingerprint, lineage)
    except run_failures() as error:
        if debug:
            raise
        raise CVFactoryError(f"The run failed: {error} (--debug shows the traceback)") from error
    return _finish(run)


def pipeline_options(config: TrainingPipelineConfig | ValidationPipelineConfig) -> dict[str, Any]:
    """Translate the ``zenml`` section to arguments of ``Pipeline.with_options``."""
    zenml = config.zenml
    options: dict[str, Any] = {"enable_cache": zenml.enable_cache}
    stack = Client().active_stack
    if stack.container_registry is not None:
        options["settings"] = {"docker": step_image()}
    if ExecutionMode.FAIL_FAST in stack.orchestrator.supported_execution_modes:
        # The failing step's own exception reaches us, and no further step is started.
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


def _finish(run: PipelineRunResponse | None) -> int:
    if run is None or not run.status.is_finished:
        click.echo("The run was submitted; watch it in the dashboard.")
        return 0
    registration = print_summary(Client().get_pipeline_run(run.id))
    return 0 if registration.gates_passed else 3
