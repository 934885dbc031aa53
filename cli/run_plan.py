"""Plan of a run: its steps, where they run, their resources, and which of them are cached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import click
from rich.console import Console
from rich.table import Table
from zenml.client import Client
from zenml.config.compiler import Compiler
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.config.step_configurations import Step
from zenml.models import StepRunResponse
from zenml.orchestrators.cache_utils import generate_cache_key, get_cached_step_run
from zenml.pipelines.pipeline_definition import Pipeline

from cli.cache_changes import explain_cache_miss
from cli.pipeline_config import ZenMLConfig
from cli.pipeline_options import pipeline_options
from cv_factory.errors import CVFactoryError
from stacks.run_errors import PIPELINE_RUN_ERRORS


@dataclass(frozen=True)
class PlannedStep:
    """A step of a run that did not start yet.

    Attributes:
        name: Name in the pipeline.
        configuration: The step, compiled for the active stack.
        cached: The earlier run whose outputs are reused; None if the step is to be run.
        reason: Why it is to be run, where steps before it are cached; else empty.
    """

    name: str
    configuration: Step
    cached: StepRunResponse | None
    reason: str = ""


def plan_steps(pipeline: Pipeline, zenml: ZenMLConfig, *arguments: Any) -> list[PlannedStep]:
    """Return the steps of a run with these arguments; nothing is stored."""
    prepared = pipeline.copy()
    prepared.prepare(*arguments)
    run_configuration = PipelineRunConfiguration(**pipeline_options(zenml))
    snapshot = Compiler().compile(prepared, Client().active_stack, run_configuration)
    planned: list[PlannedStep] = []
    reused: dict[str, StepRunResponse] = {}
    for name, step in snapshot.step_configurations.items():
        cached, reason = None, ""
        is_decided = all(upstream in reused for upstream in step.spec.upstream_steps)
        if zenml.enable_cache and step.config.enable_cache is not False and is_decided:
            inputs = _cached_inputs(step, reused)
            cached = _cached_run(step, inputs)
            if cached is None:
                hashes = {name: versions[0].content_hash for name, versions in inputs.items()}
                reason = explain_cache_miss(step, hashes)
            else:
                reused[name] = cached
        planned.append(PlannedStep(name, step, cached, reason))
    return planned


def print_cache_misses(pipeline: Pipeline, zenml: ZenMLConfig, *arguments: Any) -> None:
    """Say before a run which steps begin what is not cached, and why."""
    if zenml.enable_cache:
        for line in describe_cache_misses(plan_steps(pipeline, zenml, *arguments)):
            click.echo(line, err=True)


def describe_cache_misses(planned: Sequence[PlannedStep]) -> list[str]:
    """Return one line for each step that begins what is not cached, with its reason."""
    return [f"Not cached: {step.name}, since {step.reason}." for step in planned if step.reason]


def print_plan(
    pipeline: Pipeline,
    zenml: ZenMLConfig,
    stack: str,
    *arguments: Any,
    details: Sequence[str] = (),
) -> None:
    """Print the steps of a run with these arguments, then ``details``; nothing is stored.

    Raises:
        CVFactoryError: A store does not answer, or a parameter does not fit its step.
    """
    table = Table(title=f"Plan for stack {stack}", title_justify="left", title_style="bold")
    for title in ("Step", "Runs on", "Resources", "State"):
        table.add_column(title)
    try:
        planned = plan_steps(pipeline, zenml, *arguments)
    except PIPELINE_RUN_ERRORS as error:
        raise CVFactoryError(f"The run cannot be planned: {error}") from error
    for step in planned:
        where = "step operator" if step.configuration.config.step_operator else "orchestrator"
        state = "cached" if step.cached else "to be run"
        table.add_row(step.name, where, _resources(step.configuration), state)
    Console(highlight=False).print(table)
    # Not wrapped, so that a path or a command in a line can be copied.
    for line in (*describe_cache_misses(planned), *details, "Nothing was changed (--dry-run)."):
        click.echo(line)


def _resources(step: Step) -> str:
    settings = step.config.resource_settings.model_dump(exclude_none=True, exclude_defaults=True)
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "-"


def _cached_inputs(step: Step, reused: Mapping[str, StepRunResponse]) -> dict[str, list[Any]]:
    """Return what ZenML's cache key uses of the inputs of a step, given that they are reused."""
    inputs: dict[str, list[Any]] = {}
    for name, specs in step.spec.inputs.items():
        spec = specs[0] if isinstance(specs, list) else specs
        version = reused[spec.step_name].outputs[spec.output_name][0]
        inputs[name] = [
            SimpleNamespace(content_hash=version.content_hash, id=version.id, chunk_index=None)
        ]
    return inputs


def _cached_run(step: Step, inputs: dict[str, list[Any]]) -> StepRunResponse | None:
    """Return the earlier run of a step that would be reused with these inputs."""
    client = Client()
    key = generate_cache_key(
        step, cast(Any, inputs), client.active_stack.artifact_store, client.active_project.id
    )
    return get_cached_step_run(key)
