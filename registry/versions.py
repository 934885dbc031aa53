"""Model versions in ZenML's model control plane, the source of truth for versions and stages."""

import logging
from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

from zenml.client import Client
from zenml.enums import ModelStages
from zenml.metadata.metadata_types import MetadataType
from zenml.models import (
    ArtifactVersionResponse,
    ModelVersionArtifactRequest,
    ModelVersionPipelineRunRequest,
    ModelVersionResponse,
    PipelineRunResponse,
)
from zenml.utils.metadata_utils import log_metadata
from zenml.utils.pagination_utils import depaginate

from cv_factory.config.suggestion import suggest
from cv_factory.errors import ArtifactError, CVFactoryError
from cv_factory.inference.predictor import Predictor
from cv_factory.inference.reference import Reference
from cv_factory.progress import quiet_loggers
from registry.artifact_loader import load_artifact
from registry.audit.log_files import has_log

_ArtifactT = TypeVar("_ArtifactT")

#: Name under which a version's predictor is linked to it.
PREDICTOR = "predictor"
#: Name under which its reference for monitoring is linked to it.
REFERENCE = "reference"
#: Metadata of a version under this prefix are test metrics.
METRIC_PREFIX = "test_"
#: Metadata of a version under this prefix are versions of installed packages.
PACKAGE_PREFIX = "package_"
#: Metadata that says whether a version needs an approval before production: ``true`` or ``false``.
NEEDS_APPROVAL = "needs_approval"
#: Metadata of a version with the statements for its card of the last run that registered it.
CARD = "card"
#: Metadata of a version that names the pipeline run that made it.
RUN = "pipeline_run"
#: Metadata of a version whose artifacts, lineage and mirror are all written.
COMPLETE = "lineage_complete"


class RegistryError(CVFactoryError):
    """A model or a version does not exist, or its name is ambiguous."""

    exit_code = 2


def resolve_model_name(name: str | None = None) -> str:
    """Return ``name``, or the name of the only registered model.

    A name that ZenML does not know is a model's as well where an audit log of it is left: the model
    was deleted with ZenML's own command.

    Raises:
        RegistryError: There is no such model, or there are several and no name is given.
    """
    names = model_names()
    listed = ", ".join(names)
    if name and name not in names and has_log(Client().active_stack.artifact_store, name):
        return name
    if not names:
        raise RegistryError("No model is registered yet. Run: python run.py --pipeline training")
    if name is None and len(names) > 1:
        raise RegistryError(f"Several models are registered. Add --model NAME, one of: {listed}.")
    if name is not None and name not in names:
        raise RegistryError(f"There is no model {name}. {suggest(name, names, 'models')}")
    return name or names[0]


def model_names() -> list[str]:
    """Return the names of the registered models, sorted."""
    return sorted(model.name for model in depaginate(Client().list_models))


def get_version(model_name: str, number: int) -> ModelVersionResponse:
    """Return a version by its number.

    Raises:
        RegistryError: There is none.
    """
    matches = _list_versions(model_name, number=number)
    if not matches:
        raise RegistryError(
            f"Model {model_name} has no version {number}. See: python run.py models --model "
            f"{model_name}"
        )
    return matches[0]


def list_versions(model_name: str) -> list[ModelVersionResponse]:
    """Return every version of a model, the newest first."""
    return sorted(_list_versions(model_name), key=lambda version: -version.number)


def find_version(model_name: str, fingerprint: str) -> ModelVersionResponse | None:
    """Return the version of a model that holds the predictor with this fingerprint, or None."""
    return next(iter(_list_versions(model_name, tags=_fingerprint_tag(fingerprint))), None)


def find_production(model_name: str) -> ModelVersionResponse | None:
    """Return the version of a model that is in production, or None."""
    return next(iter(_list_versions(model_name, stage=ModelStages.PRODUCTION)), None)


def predictor_fingerprint(version: ModelVersionResponse) -> str:
    """Return the fingerprint of a version's predictor, as it was registered."""
    return str(version.run_metadata.get(PREDICTOR, ""))


def version_lineage(version: ModelVersionResponse) -> dict[str, str]:
    """Return a version's metadata without its metrics and the registry's own marks."""
    marks = (PREDICTOR, "evaluation", NEEDS_APPROVAL, CARD, COMPLETE)
    return {
        key: str(value)
        for key, value in version.run_metadata.items()
        if key not in marks and not key.startswith(METRIC_PREFIX)
    }


def training_run(version: ModelVersionResponse) -> PipelineRunResponse:
    """Return the pipeline run that made a version.

    Raises:
        ArtifactError: It was deleted.
    """
    name = str(version.run_metadata.get(RUN, ""))
    try:
        return Client().get_pipeline_run(name, allow_name_prefix_match=False)
    except KeyError:
        raise ArtifactError(
            f"{version.model.name} version {version.number} was made by the run {name or '?'}, "
            "which was deleted from ZenML: its parameters are lost."
        ) from None


def linked_artifact(version: ModelVersionResponse, name: str) -> ArtifactVersionResponse:
    """Return an artifact that is linked to a version, without loading it.

    Raises:
        ArtifactError: The version has none of this name.
    """
    artifact = version.get_artifact(name)
    if artifact is None:
        raise ArtifactError(
            f"{version.model.name} version {version.number} has no artifact {name!r} linked to it: "
            "it was not registered by this project, or the artifact was deleted. Register it anew "
            "by training again."
        )
    return artifact


def load_linked_artifact(
    version: ModelVersionResponse, name: str, artifact_class: type[_ArtifactT]
) -> _ArtifactT:
    """Load an artifact that is linked to a version.

    Raises:
        ArtifactError: There is none of this name, or its files are gone or damaged.
    """
    artifact = linked_artifact(version, name)
    try:
        return load_artifact(artifact, artifact_class)
    except ArtifactError as error:
        raise ArtifactError(f"{version.model.name} version {version.number}: {error}") from error


def load_predictor(version: ModelVersionResponse) -> Predictor:
    """Load the predictor that is linked to a version; raises as ``load_linked_artifact``."""
    return load_linked_artifact(version, PREDICTOR, Predictor)


def load_reference(version: ModelVersionResponse) -> Reference | None:
    """Load the reference for monitoring that is linked to a version.

    None if an earlier release trained it: training again with the same settings links one.

    Raises:
        ArtifactError: Its files are gone or damaged.
    """
    if version.get_artifact(REFERENCE) is None:
        return None
    return load_linked_artifact(version, REFERENCE, Reference)


def create_version(model_name: str, fingerprint: str, description: str) -> ModelVersionResponse:
    """Create a version that ``find_version`` finds, and its model if there is none yet."""
    client = Client()
    if not _model_exists(model_name):
        client.create_model(model_name)
    return client.create_model_version(
        model_name, description=description, tags=[_fingerprint_tag(fingerprint)]
    )


def linked_artifact_ids(version: ModelVersionResponse) -> dict[str, tuple[str, ...]]:
    """Return the ids of the artifacts that are linked to a version, by name."""
    ids: dict[str, tuple[str, ...]] = {}
    for artifact in depaginate(Client().list_artifact_versions, model_version_id=version.id):
        ids[artifact.artifact.name] = (*ids.get(artifact.artifact.name, ()), str(artifact.id))
    return ids


def artifact_exists(artifact_version_id: str) -> bool:
    """Return whether an artifact version was not deleted."""
    return bool(Client().list_artifact_versions(id=artifact_version_id).items)


def link_artifacts(
    version: ModelVersionResponse, artifact_version_ids: Mapping[str, UUID], run_id: UUID | None
) -> None:
    """Link artifact versions, each as the only one of its name, and the run; repeating is harmless.

    Args:
        version: The version.
        artifact_version_ids: Artifact versions by the artifact's name.
        run_id: Pipeline run to link as well; None for none.
    """
    client, linked = Client(), linked_artifact_ids(version)
    for name, artifact_version_id in artifact_version_ids.items():
        for other in linked.get(name, ()):
            if UUID(other) != artifact_version_id:
                client.delete_model_version_artifact_link(version.id, UUID(other))
        client.zen_store.create_model_version_artifact_link(
            ModelVersionArtifactRequest(
                model_version=version.id, artifact_version=artifact_version_id
            )
        )
    if run_id is not None:
        client.zen_store.create_model_version_pipeline_run_link(
            ModelVersionPipelineRunRequest(model_version=version.id, pipeline_run=run_id)
        )


def is_complete(version: ModelVersionResponse) -> bool:
    """Return whether a version has what its registration gives it, and nothing was deleted since.

    A run that registers a predictor again completes a version whose predictor or run was deleted
    from ZenML.
    """
    if not version.run_metadata.get(COMPLETE) or version.get_artifact(PREDICTOR) is None:
        return False
    name = str(version.run_metadata.get(RUN, ""))
    return bool(Client().list_pipeline_runs(name=f"equals:{name}").items)


def add_metadata(version: ModelVersionResponse, metadata: Mapping[str, MetadataType]) -> None:
    """Add metadata to a version."""
    log_metadata(metadata=dict(metadata), model_version_id=version.id)


def set_stage(model_name: str, number: int, stage: str) -> None:
    """Move a version to a stage; ZenML archives the version that held it."""
    version = get_version(model_name, number)
    # ZenML lets one version hold a stage, archived too, and says that it archives an archived one.
    with quiet_loggers(logging.WARNING, "zenml.zen_stores.sql_zen_store"):
        Client().update_model_version(model_name, version.id, stage=stage, force=True)


def _list_versions(model_name: str, **filters: Any) -> list[ModelVersionResponse]:
    if not _model_exists(model_name):
        return []
    return depaginate(Client().list_model_versions, model=model_name, hydrate=True, **filters)


def _fingerprint_tag(fingerprint: str) -> str:
    return f"predictor-{fingerprint[:16]}"


def _model_exists(model_name: str) -> bool:
    return bool(Client().list_models(name=f"equals:{model_name}").items)
