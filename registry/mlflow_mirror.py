"""Mirrors a registered version to the MLflow registry of the active stack: tags and aliases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zenml.client import Client

from cv_factory.errors import StackError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_VERSION_TAG = "zenml_version"
_MIRRORED_STAGES = ("staging", "production")


@dataclass(frozen=True)
class MirroredVersion:
    """A version as MLflow's registry shall show it.

    Attributes:
        model_name: Name of the registered model.
        version: Number of the ZenML version.
        stage: ZenML's stage; it becomes an alias.
        predictor_uri: Where the predictor lies in the artifact store.
        run_id: The MLflow run that trained it; empty if unknown.
        metrics: Test metrics, logged to that run as ``test_NAME``.
        tags: Lineage.
    """

    model_name: str
    version: int
    stage: str
    predictor_uri: str
    run_id: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def mirror(entry: MirroredVersion) -> str:
    """Create or update the version in MLflow; repeating changes nothing.

    Returns:
        MLflow's number of the version.

    Raises:
        StackError: The active stack has no MLflow experiment tracker.
    """
    client = _client()
    number = _find(client, entry) or _create(client, entry)
    for key, value in entry.tags.items():
        client.set_model_version_tag(entry.model_name, number, key, value)
    _set_aliases(client, entry, number)
    if entry.run_id:
        for name, metric in entry.metrics.items():
            client.log_metric(entry.run_id, f"test_{name}", metric)
    return number


def _client() -> "MlflowClient":
    tracker = Client().active_stack.experiment_tracker
    if tracker is None or tracker.flavor != "mlflow":
        raise StackError(
            "The active stack has no MLflow experiment tracker, so that nothing can be mirrored to "
            "the MLflow registry. Run: python -m stacks apply local --set"
        )
    from mlflow import MlflowClient

    tracker.configure_mlflow()  # type: ignore[attr-defined]
    return MlflowClient()


def _find(client: "MlflowClient", entry: MirroredVersion) -> str | None:
    for found in client.search_model_versions(f"name = '{entry.model_name}'"):
        if found.tags.get(_VERSION_TAG) == str(entry.version):
            return str(found.version)
    return None


def _create(client: "MlflowClient", entry: MirroredVersion) -> str:
    if not client.search_registered_models(f"name = '{entry.model_name}'"):
        client.create_registered_model(entry.model_name)
    created = client.create_model_version(
        entry.model_name,
        source=entry.predictor_uri,
        run_id=entry.run_id or None,
        tags={_VERSION_TAG: str(entry.version)},
    )
    return str(created.version)


def _set_aliases(client: "MlflowClient", entry: MirroredVersion, number: str) -> None:
    """Point the stage's alias at this version, and take away aliases that it no longer has."""
    for alias, holder in client.get_registered_model(entry.model_name).aliases.items():
        if str(holder) == number and alias in _MIRRORED_STAGES and alias != entry.stage:
            client.delete_registered_model_alias(entry.model_name, alias)
    if entry.stage in _MIRRORED_STAGES:
        client.set_registered_model_alias(entry.model_name, entry.stage, number)
