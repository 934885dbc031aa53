"""Mirrors ZenML's versions to the MLflow registry of the active stack, as tags and aliases.

Everything there is derived from ZenML, so that a lost mirror can be rebuilt.
"""

from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from zenml.client import Client
from zenml.models import ModelVersionResponse

from cv_factory.errors import StackError
from registry import versions
from registry.mlflow.tracking import MLFLOW_RUN_KEY

if TYPE_CHECKING:
    from mlflow import MlflowClient

_P = ParamSpec("_P")
_R = TypeVar("_R")
_VERSION_TAG = "zenml_version"
_HEAD_TAG = "audit_log_head"
_MIRRORED_STAGES = ("staging", "production")


def _translate_mlflow_errors(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Raise MLflow's errors as ``StackError``, which says what they mean for the registry."""

    @wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        from mlflow.exceptions import MlflowException

        try:
            return method(*args, **kwargs)
        except MlflowException as error:
            raise StackError(
                f"The MLflow request failed ({error}). ZenML and the audit log hold what was "
                "begun: run the command again when MLflow works."
            ) from error

    return call


class MlflowMirror:
    """Mirror of one model in the MLflow registry."""

    def __init__(self, model_name: str) -> None:
        """Create the mirror; it connects when it is first used."""
        self._model_name = model_name

    @cached_property
    def _client(self) -> "MlflowClient":
        return _connect()

    @_translate_mlflow_errors
    def check_connection(self) -> None:
        """Connect.

        Raises:
            StackError: The active stack has no MLflow experiment tracker.
        """
        self._client.search_registered_models(max_results=1)

    @_translate_mlflow_errors
    def update_stages(self, stages: Mapping[int, str]) -> None:
        """Make aliases agree with the stages, adding versions that are missing."""
        versions_by_stage = {stage: v for v, stage in stages.items() if stage in _MIRRORED_STAGES}
        numbers = {
            stage: self._find_number(version) or self.update_version(version)
            for stage, version in (
                (stage, versions.get_version(self._model_name, number))
                for stage, number in versions_by_stage.items()
            )
        }
        if not self._model_exists():
            return
        aliases = self._client.get_registered_model(self._model_name).aliases
        for alias in _MIRRORED_STAGES:
            if alias in numbers:
                self._client.set_registered_model_alias(self._model_name, alias, numbers[alias])
            elif alias in aliases:
                self._client.delete_registered_model_alias(self._model_name, alias)

    @_translate_mlflow_errors
    def alias_versions(self) -> dict[str, int | None] | None:
        """Return the version that each stage's alias names; None where the model is missing.

        The number is ZenML's; None for a version of MLflow that mirrors none.
        """
        if not self._model_exists():
            return None
        aliases = self._client.get_registered_model(self._model_name).aliases
        tags = {
            str(v.version): v.tags
            for v in self._client.search_model_versions(f"name = '{self._model_name}'")
        }
        mirrored = {
            alias: tags.get(str(number), {}).get(_VERSION_TAG)
            for alias, number in aliases.items()
            if alias in _MIRRORED_STAGES
        }
        return {alias: int(n) if n and n.isdigit() else None for alias, n in mirrored.items()}

    @_translate_mlflow_errors
    def update_version(self, version: ModelVersionResponse) -> str:
        """Create or update one version with its tags and metrics; repeating changes nothing.

        Returns:
            MLflow's number of the version.
        """
        metadata = version.run_metadata
        model = version.get_artifact("trained_model")
        run_id = str(model.run_metadata.get(MLFLOW_RUN_KEY, "")) if model else ""
        number = self._find_number(version) or self._create_version(version, run_id)
        for key, value in metadata.items():
            if isinstance(value, str):
                self._client.set_model_version_tag(self._model_name, number, key, value)
        if run_id:
            for key, value in metadata.items():
                if key.startswith(versions.METRIC_PREFIX) and isinstance(value, float):
                    self._client.log_metric(run_id, key, value)
        return number

    @_translate_mlflow_errors
    def store_log_head(self, number: int, sha256: str) -> None:
        """Store the end of the audit log a second time, so that a cut log shows."""
        if self._model_exists():
            self._client.set_registered_model_tag(self._model_name, _HEAD_TAG, f"{number}:{sha256}")

    @_translate_mlflow_errors
    def log_head(self) -> tuple[int, str] | None:
        """Return number and SHA-256 of the last stored log head; None without one."""
        if not self._model_exists():
            return None
        tag = self._client.get_registered_model(self._model_name).tags.get(_HEAD_TAG)
        if tag is None:
            return None
        number, sha256 = tag.split(":", 1)
        return int(number), sha256

    def _model_exists(self) -> bool:
        return bool(self._client.search_registered_models(f"name = '{self._model_name}'"))

    def _find_number(self, version: ModelVersionResponse) -> str | None:
        """Return MLflow's number of a version; ZenML gives a deleted version's number again."""
        predictor = versions.predictor_fingerprint(version)
        for mirrored in self._client.search_model_versions(f"name = '{self._model_name}'"):
            tags = mirrored.tags
            if tags.get(_VERSION_TAG) == str(version.number) and (
                tags.get(versions.PREDICTOR, predictor) == predictor
            ):
                return str(mirrored.version)
        return None

    def _create_version(self, version: ModelVersionResponse, run_id: str) -> str:
        if not self._model_exists():
            self._client.create_registered_model(self._model_name)
        predictor = version.get_artifact(versions.PREDICTOR)
        created = self._client.create_model_version(
            self._model_name,
            source=predictor.uri if predictor else "",
            run_id=run_id or None,
            tags={
                _VERSION_TAG: str(version.number),
                versions.PREDICTOR: versions.predictor_fingerprint(version),
            },
        )
        return str(created.version)


def _connect() -> "MlflowClient":
    tracker = Client().active_stack.experiment_tracker
    if tracker is None or tracker.flavor != "mlflow":
        raise StackError(
            "The active stack has no MLflow experiment tracker, whose registry mirrors versions. "
            "Run: python -m stacks apply local --set"
        )
    from mlflow import MlflowClient

    tracker.configure_mlflow()  # type: ignore[attr-defined]
    return MlflowClient()
