"""Loads stored artifacts as a given class.

ZenML records the import path that a class had when it was stored. Classes move, so that path is
never imported: the caller names the class.
"""

from collections.abc import Mapping
from typing import TypeVar

from zenml.exceptions import DoesNotExistException
from zenml.models import ArtifactVersionResponse, PipelineRunResponse, StepRunResponse
from zenml.utils import source_utils

from cv_factory.errors import ArtifactError

_ArtifactT = TypeVar("_ArtifactT")


def load_artifact(
    artifact: ArtifactVersionResponse, artifact_class: type[_ArtifactT]
) -> _ArtifactT:
    """Load an artifact version with the materializer that stored it.

    Raises:
        ArtifactError: Its files are gone, damaged, or of another artifact class.
    """
    body = artifact.get_body().model_copy(
        update={"data_type": source_utils.resolve(artifact_class)}
    )
    try:
        loaded: _ArtifactT = artifact.model_copy(update={"body": body}).load()
    except (OSError, DoesNotExistException) as error:
        raise ArtifactError(
            f"The files of artifact {artifact.name} at {artifact.uri} are gone ({error})."
        ) from error
    return loaded


def step_output(steps: Mapping[str, StepRunResponse], name: str) -> ArtifactVersionResponse:
    """Return the only output of a step, without loading it.

    Args:
        steps: Those of a run; each ``run.steps`` queries the store.
        name: Of the step.
    """
    (outputs,) = steps[name].outputs.values()
    return outputs[0]


def load_output(
    run: PipelineRunResponse, step: str, artifact_class: type[_ArtifactT]
) -> _ArtifactT:
    """Load the only output of a step; raises as ``load_artifact``."""
    return load_artifact(step_output(run.steps, step), artifact_class)
