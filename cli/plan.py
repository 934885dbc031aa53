"""The plan of a run: its steps, what they ask for, and which of them are cached."""

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
from cv_factory.config.training import TrainingPipelineConfig, ValidationPipelineConfig


def print_plan(
    config: TrainingPipelineConfig | ValidationPipelineConfig,
    zenml: ZenMLConfig,
    source_fingerprint: str,
    lineage: dict[str, str],
    stack: str,
) -> None:
    """Print what a run with this configuration would do; nothing is stored."""
    pipeline = _prepared(config, source_fingerprint, lineage)
    run_configuration = PipelineRunConfiguration(**pipeline_options(zenml))
    snapshot = Compiler().compile(pipeline, Client().active_stack, run_configuration)
    table = Table(title=f"Plan for stack {stack}", title_justify="left", title_style="bold")
    for title in ("Step", "Runs", "Asks for", "State"):
        table.add_column(title)
    reused: dict[str, StepRunResponse] = {}
    for name, step in snapshot.step_configurations.items():
        cached = _cached_run(step, reused) if zenml.enable_cache else None
        if cached is not None:
            reused[name] = cached
        where = "step operator" if step.config.step_operator else "orchestrator"
        table.add_row(name, where, _resources(step), "cached" if cached else "to be run")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Configuration {lineage['config'][:12]}, commit {lineage['git_commit'][:12]}")
    if isinstance(config, TrainingPipelineConfig):
        console.print(_search_line(config))
    console.print("Nothing was changed (--dry-run).")


def _search_line(config: TrainingPipelineConfig) -> str:
    if config.search is None:
        return "Search: off (the configuration has no section 'search')"
    families = ", ".join(config.search.families)
    return f"Search: on, {config.search.trials} trials among {families}"


def _prepared(
    config: TrainingPipelineConfig | ValidationPipelineConfig,
    source_fingerprint: str,
    lineage: dict[str, str],
) -> Pipeline:
    """Return a copy of the pipeline of this configuration, with its arguments."""
    if isinstance(config, ValidationPipelineConfig):
        from pipelines.validation import validation

        pipeline = validation.copy()
        pipeline.prepare(config, source_fingerprint)
    else:
        from pipelines.training import training

        pipeline = training.copy()
        pipeline.prepare(config, source_fingerprint, lineage)
    return pipeline


def _resources(step: Step) -> str:
    asked = step.config.resource_settings.model_dump(exclude_none=True, exclude_defaults=True)
    return ", ".join(f"{key} {value}" for key, value in asked.items()) or "-"


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
        # ZenML keys its cache on these three of an input.
        inputs[name] = [
            SimpleNamespace(content_hash=version.content_hash, id=version.id, chunk_index=None)
        ]
    key = generate_cache_key(
        step, cast(Any, inputs), client.active_stack.artifact_store, client.active_project.id
    )
    return get_cached_step_run(key)
