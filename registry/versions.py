"""Model versions in ZenML's model control plane, the source of truth for versions and stages."""

from collections.abc import Iterable, Mapping
from typing import TypeVar
from uuid import UUID

from zenml.client import Client
from zenml.enums import ModelStages
from zenml.exceptions import DoesNotExistException
from zenml.metadata.metadata_types import MetadataType
from zenml.models import (
    ModelVersionArtifactRequest,
    ModelVersionPipelineRunRequest,
    ModelVersionResponse,
    PipelineRunResponse,
)
from zenml.utils.metadata_utils import log_metadata
from zenml.utils.pagination_utils import depaginate

from cv_factory.errors import ArtifactError, CVFactoryError
from cv_factory.inference.predictor import Predictor

_Noun = TypeVar("_Noun")


class RegistryError(CVFactoryError):
    """A model or version that was named is not there, or not named clearly."""

    exit_code = 2


#: Name under which a version's predictor is linked to it.
PREDICTOR = "predictor"
#: Metadata of a version under this prefix are test metrics.
METRIC_PREFIX = "test_"
#: Metadata of a version that needs an approval before production: ``true`` or ``false``.
NEEDS_APPROVAL = "needs_approval"
#: Metadata of a version that everything is known of.
COMPLETE = "lineage_complete"


def find_version(model_name: str, fingerprint: str) -> ModelVersionResponse | None:
    """Return the version of a model that holds this very predictor, or None."""
    if not _model_exists(model_name):
        return None
    found = Client().list_model_versions(
        model=model_name, tags=_fingerprint_tag(fingerprint), hydrate=True
    )
    return found.items[0] if found.items else None


def find_production(model_name: str) -> ModelVersionResponse | None:
    """Return the version of a model that is in production, or None."""
    if not _model_exists(model_name):
        return None
    found = Client().list_model_versions(
        model=model_name, stage=ModelStages.PRODUCTION, hydrate=True
    )
    return found.items[0] if found.items else None


def load_predictor(version: ModelVersionResponse) -> Predictor:
    """Load the predictor that is linked to a version.

    Raises:
        ArtifactError: The version has none, or it is damaged.
    """
    return load_artifact(version, PREDICTOR, Predictor)


def load_artifact(version: ModelVersionResponse, name: str, kind: type[_Noun]) -> _Noun:
    """Load an artifact that is linked to a version.

    Raises:
        ArtifactError: There is none of this name, its files are gone or damaged, or it is none.
    """
    about = f"{version.model.name} version {version.number}"
    artifact = version.get_artifact(name)
    if artifact is None:
        raise ArtifactError(
            f"{about} has no {name} linked to it: it was not registered by this project, or the "
            "artifact was deleted. It can not be used; register it anew by training again."
        )
    try:
        loaded = artifact.load()
    except (OSError, DoesNotExistException) as error:
        raise ArtifactError(f"{about}: its {name} at {artifact.uri} is gone ({error}).") from error
    if not isinstance(loaded, kind):
        raise ArtifactError(f"{about}: artifact {artifact.id} is no {kind.__name__}.")
    return loaded


def run_of(version: ModelVersionResponse) -> PipelineRunResponse:
    """Return the run that made a version.

    Raises:
        ArtifactError: It is gone.
    """
    name = str(version.run_metadata.get("pipeline_run", ""))
    try:
        return Client().get_pipeline_run(name, allow_name_prefix_match=False)
    except KeyError:
        raise ArtifactError(
            f"{version.model.name} version {version.number} was made by the run {name or '?'}, "
            "which ZenML does not have any more: what it was told is lost."
        ) from None


def lineage_of(version: ModelVersionResponse) -> dict[str, str]:
    """Return what is known of a version's making, without its metrics and the registry's marks."""
    marks = (PREDICTOR, "evaluation", NEEDS_APPROVAL, COMPLETE)
    return {
        key: str(value)
        for key, value in version.run_metadata.items()
        if key not in marks and not key.startswith(METRIC_PREFIX)
    }


def create_version(model_name: str, fingerprint: str, description: str) -> ModelVersionResponse:
    """Create the model if need be, and a version that can be found by its predictor."""
    client = Client()
    if not _model_exists(model_name):
        client.create_model(model_name)
    return client.create_model_version(
        model_name, description=description, tags=[_fingerprint_tag(fingerprint)]
    )


def link_artifacts(
    version: ModelVersionResponse, artifact_version_ids: Iterable[UUID], run_id: UUID
) -> None:
    """Link artifact versions and the pipeline run to a model version; repeating is harmless."""
    store = Client().zen_store
    for artifact_version_id in artifact_version_ids:
        store.create_model_version_artifact_link(
            ModelVersionArtifactRequest(
                model_version=version.id, artifact_version=artifact_version_id
            )
        )
    store.create_model_version_pipeline_run_link(
        ModelVersionPipelineRunRequest(model_version=version.id, pipeline_run=run_id)
    )


def describe_version(version: ModelVersionResponse, metadata: Mapping[str, MetadataType]) -> None:
    """Add metadata to a version."""
    log_metadata(metadata=dict(metadata), model_version_id=version.id)


def set_stage(model_name: str, version: int, stage: str) -> None:
    """Move a version to a stage; whichever version held it is archived."""
    Client().update_model_version(
        model_name, _by_number(model_name, version).id, stage=stage, force=True
    )


def get_version(model_name: str, number: int) -> ModelVersionResponse:
    """Return a version by its number.

    Raises:
        RegistryError: There is none.
    """
    version = _by_number(model_name, number)
    return Client().get_model_version(model_name, version.id)


def all_versions(model_name: str) -> list[ModelVersionResponse]:
    """Return every version of a model, the newest first."""
    if not _model_exists(model_name):
        return []
    found = depaginate(Client().list_model_versions, model=model_name, hydrate=True)
    return sorted(found, key=lambda version: -version.number)


def the_model(name: str | None = None) -> str:
    """Return the name of the model that was named, or of the one model that is registered.

    Raises:
        RegistryError: There is no such model, or there are several and none was named.
    """
    names = sorted(model.name for model in depaginate(Client().list_models))
    if not names:
        raise RegistryError("No model is registered yet. Run: python run.py --pipeline training")
    if name is None and len(names) > 1:
        raise RegistryError(f"Say which model with --model: {', '.join(names)}.")
    if name is not None and name not in names:
        raise RegistryError(f"There is no model {name}; registered: {', '.join(names)}.")
    return name or names[0]


def _by_number(model_name: str, number: int) -> ModelVersionResponse:
    if _model_exists(model_name):
        found = Client().list_model_versions(model=model_name, number=number).items
        if found:
            return found[0]
    raise RegistryError(f"Model {model_name} has no version {number}: see run.py models.")


def _fingerprint_tag(fingerprint: str) -> str:
    return f"predictor-{fingerprint[:16]}"


def _model_exists(model_name: str) -> bool:
    return bool(Client().list_models(name=f"equals:{model_name}").items)
