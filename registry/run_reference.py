"""Reference to the running pipeline run: its stored artifacts and its steps' parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from registry.mlflow.tracking import active_run_id

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse
    from zenml.steps import StepContext


@dataclass(frozen=True)
class RunReference:
    """The run that trained a candidate.

    Attributes:
        run_id: The ZenML pipeline run.
        run_name: Its name.
        artifact_version_ids: Artifacts to link, by name.
        urls: Pages that show the run, by name.
        parameters: Parameters of the run's steps, by step.
        mlflow_run_id: The MLflow run of the step ``register``; empty if there is none.
    """

    run_id: UUID
    run_name: str
    artifact_version_ids: Mapping[str, UUID]
    urls: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    mlflow_run_id: str = ""


def build_run_reference(context: "StepContext") -> RunReference:
    """Return the reference to the register step's run, with the outputs of the earlier steps."""
    from zenml.utils.dashboard_utils import get_run_url

    run = context.pipeline_run
    url = get_run_url(run)
    return RunReference(
        run_id=run.id,
        run_name=run.name,
        artifact_version_ids={
            name: outputs[0].id
            for step in run.steps.values()
            for name, outputs in step.outputs.items()
        },
        urls={"pipeline_run_url": url} if url else {},
        parameters=step_parameters(run),
        mlflow_run_id=active_run_id(),
    )


def step_parameters(run: "PipelineRunResponse") -> dict[str, Any]:
    """Return the parameters of a run's steps, by step; steps without parameters are left out."""
    return {
        name: dict(step.config.parameters)
        for name, step in run.steps.items()
        if step.config.parameters
    }
