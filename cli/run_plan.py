"""Plan of a run: its steps, where they run, their resources, and which of them are cached."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from zenml.client import Client
from zenml.config.compiler import Compiler
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.config.step_configurations import Step
from zenml.models import StepRunResponse
from zenml.orchestrators.cache_utils import generate_cache_key, get_cached_step_run
from zenml.pipelines.pipeline_definition import Pipeline

from cli.execution import pipeline_options
from cli.pipeline_config import ZenMLConfig


def print_plan(
    pipeline: Pipeline,
    zenml: ZenMLConfig,
    stack: str,
    *arguments: Any,
    details: Sequence[str] = (),
) -> None:
    """Print the steps of a run with these arguments, then ``details``; nothing is stored."""
    prepared = pipeline.copy()
    prepared.prepare(*arguments)
    run_configuration = PipelineRunConfiguration(**pipeline_options(zenml))
    snapshot = Compiler().compile(prepared, Client().active_stack, run_configuration)
    table = Table(title=f"Plan for stack {stack}", title_justify="left", title_style="bold")
    for title in ("Step", "Runs on", "Resources", "State"):
        table.add_column(title)
    reused: dict[str, StepRunResponse] = {}
    for name, step in snapshot.step_configurations.items():
        cached = _cached_run(step, reused) if zenml.enable_cache else None
        if cached is not None:
            reused[name] = cached
        where = "step operator" if step.config.step_operator else "orchestrator"
        table.add_row(name, where, _resources(step), "cached" if cached else "to be run")
    console = Console(highlight=False)
    for line in (table, *details, "Nothing was changed (--dry-run)."):
        console.print(line)


def _resources(step: Step) -> str:
    settings = step.config.resource_settings.model_dump(exclude_none=True, exclude_defaults=True)
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "-"


def _cached_run(step: Step, reused: dict[str, StepRunResponse]) -> StepRunResponse | None:
    """Return the earlier run of a step that would be reused, given that its inputs are reused."""
    if step.config.enable_cache is False:
        return None
    if any(upstream not in reused for upstream in step.spec.upstream_steps):
        return None
    client = Client()
    inputs: dict[str, list[Any]] = {}
    for name, specs in step.spec.inputs.items():
        spec = specs[0] if isinstance(specs, list) else specs
        version = reused[spec.step_name].outputs[spec.output_name][0]
        # ZenML's cache key uses these three attributes of an input.
        inputs[name] = [
            SimpleNamespace(content_hash=version.content_hash, id=version.id, chunk_index=None)
        ]
    key = generate_cache_key(
        step, cast(Any, inputs), client.active_stack.artifact_store, client.active_project.id
    )
    return get_cached_step_run(key)
