"""Model versions in ZenML's model control plane, the source of truth for versions and stages."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from zenml.client import Client
from zenml.enums import ModelStages
from zenml.metadata.metadata_types import MetadataType
from zenml.models import (
    ArtifactVersionResponse,
    ModelVersionArtifactRequest,
    ModelVersionPipelineRunRequest,
    ModelVersionResponse,
)
from zenml.utils.metadata_utils import log_metadata
from zenml.utils.pagination_utils import depaginate

from cv_factory.errors import ArtifactError, CVFactoryError
from cv_factory.inference.predictor import Predictor


class RegistryError(CVFactoryError):
    """A model or version that was named is not there, or not named clearly."""

    exit_code = 2


#: Name under which a version's predictor is linked to it.
PREDICTOR = "predictor"


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


def serving_version(model_name: str, number: int | None) -> ModelVersionResponse:
    """Return the version in production, or a certain one.

    Raises:
        RegistryError: There is none.
    """
    if number is not None:
        return get_version(model_name, number)
    found = find_production(model_name)
    if found is None:
        raise RegistryError(
            f"Model {model_name} has no version in production. Run: python run.py --pipeline "
            "deployment, or python run.py promote VERSION; or name a version (model.version)."
        )
    return found


def predictor_artifact(version: ModelVersionResponse) -> ArtifactVersionResponse:
    """Return the stored predictor that is linked to a version.

    Raises:
        ArtifactError: The version has none.
    """
    artifact = version.get_artifact(PREDICTOR)
    if artifact is None:
        raise ArtifactError(
            f"Model {version.model.name} version {version.number} has no predictor linked to it: "
            "it was not registered by this project. Archive it, or gate against another version."
        )
    return artifact


def load_predictor(version: ModelVersionResponse) -> Predictor:
    """Load the predictor that is linked to a version.

    Raises:
        ArtifactError: The version has none, or it is damaged.
    """
    artifact = predictor_artifact(version)
    predictor = artifact.load()
    if not isinstance(predictor, Predictor):
        raise ArtifactError(f"Artifact {artifact.id} is no predictor but a {type(predictor)}.")
    return predictor


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


def only_model() -> str:
    """Return the name of the one model that is registered.

    Raises:
        RegistryError: There is none, or there are several.
    """
    names = sorted(model.name for model in depaginate(Client().list_models))
    if not names:
        raise RegistryError("No model is registered yet. Run: python run.py --pipeline training")
    if len(names) > 1:
        raise RegistryError(f"Say which model with --model: {', '.join(names)}.")
    return names[0]


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
