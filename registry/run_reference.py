"""Reads off a step's context where its inputs are stored."""

from typing import TYPE_CHECKING

from registry.register import RunReference
from registry.tracking import MLFLOW_RUN_KEY

if TYPE_CHECKING:
    from zenml.steps import StepContext


def reference_of(context: "StepContext") -> RunReference:
    """Return ids and locations of the register step's inputs."""
    inputs = {name: versions[0] for name, versions in context.inputs.items()}
    return RunReference(
        run_id=context.pipeline_run.id,
        run_name=context.pipeline_run.name,
        artifact_version_ids={name: version.id for name, version in inputs.items()},
        predictor_uri=inputs["predictor"].uri,
        mlflow_run_id=str(inputs["trained_model"].run_metadata.get(MLFLOW_RUN_KEY, "")),
    )
