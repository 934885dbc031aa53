"""Runs a ZenML pipeline and waits for its end."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import click
from zenml.client import Client
from zenml.exceptions import IllegalOperationError
from zenml.models import PipelineRunResponse
from zenml.pipelines.pipeline_definition import Pipeline

from cli.library_logging import quiet_libraries
from cli.pipeline_config import ZenMLConfig
from cli.pipeline_options import pipeline_options
from cli.run_plan import print_cache_misses
from cv_factory.config.section import Section
from cv_factory.errors import CVFactoryError, describe_system_error
from registry.run_alerts import RunAlerts, report_end, report_error
from registry.versions import RegistryError, resolve_model_name
from stacks.compat.zenml_interrupts import stop_interrupted_steps
from stacks.run_errors import PIPELINE_RUN_ERRORS

_FAILURES: tuple[type[Exception], ...] = (CVFactoryError, *PIPELINE_RUN_ERRORS)


def run_to_end(
    pipeline: Pipeline, zenml: ZenMLConfig, *arguments: Any, debug: bool
) -> PipelineRunResponse | None:
    """Run a pipeline with its arguments, after saying which cached steps are to be run and why.

    Returns:
        The finished run; None if it was only submitted, which is printed.

    Raises:
        CVFactoryError: A step refused or failed.
        KeyboardInterrupt: It was stopped.
    """
    if not debug:
        quiet_libraries()
    stop_interrupted_steps()
    alerts = RunAlerts(pipeline.name, find_model_name(arguments[0]), zenml.alert_on_success)
    is_synchronous = Client().active_stack.orchestrator.config.is_synchronous
    options = pipeline_options(zenml) | alerts.options(is_synchronous=is_synchronous)
    configured, start = pipeline.with_options(**options), datetime.now(UTC)
    try:
        print_cache_misses(pipeline, zenml, *arguments)
        run = configured(*arguments)
    except IllegalOperationError as error:
        # Python drops a KeyboardInterrupt in a finalizer: the step goes on, and cannot complete.
        if "Stopping steps" not in str(error):
            raise
        raise KeyboardInterrupt from error
    except _FAILURES as error:
        report_error(alerts, error, start)
        if debug or isinstance(error, CVFactoryError):
            raise
        reason = describe_system_error(error) or f"{error} (--debug shows the traceback)"
        raise CVFactoryError(f"The run failed: {reason}") from error
    if run is None or not run.status.is_finished:
        click.echo("The run was submitted; watch it in the dashboard.")
        return None
    run = Client().get_pipeline_run(run.id)
    report_end(alerts, run)
    return run


def find_model_name(config: Section) -> str:
    """Return the model that a configuration names, or else the only one; empty without any."""
    if config.MODEL_NAME_KEY is None:
        return ""
    value: Any = config.model_dump(by_alias=True)
    for key in config.MODEL_NAME_KEY.split("."):
        value = value[key]
    with suppress(RegistryError):
        return resolve_model_name() if value is None else str(value)
    return ""
