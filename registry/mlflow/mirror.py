"""Mirrors ZenML's versions to the MLflow registry of the active stack: tags and aliases.

Everything shown there is read off ZenML, so that a lost mirror can be made again.
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


def _reported(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Say of whatever MLflow raises that it was MLflow, and what that means for the registry."""

    @wraps(method)
    def call(*arguments: _P.args, **named: _P.kwargs) -> _R:
        from mlflow.exceptions import MlflowException

        try:
            return method(*arguments, **named)
        except MlflowException as error:
            raise StackError(
                f"MLflow does not do what it should ({error}). ZenML holds the truth, and what was "
                "begun stands in the audit log: run the command again when MLflow is back."
            ) from error

    return call


class MlflowMirror:
    """The MLflow registry's picture of one model."""

    def __init__(self, model_name: str) -> None:
        """Remember which model; the connection is made when it is needed."""
        self._model_name = model_name

    @cached_property
    def _client(self) -> "MlflowClient":
        return _connect()

    @_reported
    def require(self) -> None:
        """Connect.

        Raises:
            StackError: The active stack has no MLflow experiment tracker.
        """
        self._client.search_registered_models(max_results=1)

    @_reported
    def show(self, stages: Mapping[int, str]) -> None:
        """Make aliases agree with the stages, adding versions that are missing."""
        held = {stage: v for v, stage in stages.items() if stage in _MIRRORED_STAGES}
        numbers = {
            stage: self._number(version)
            or self.show_version(versions.get_version(self._model_name, version))
            for stage, version in held.items()
        }
        if not self._is_known():
            return
        shown = self._client.get_registered_model(self._model_name).aliases
        for alias in _MIRRORED_STAGES:
            if alias in numbers:
                self._client.set_registered_model_alias(self._model_name, alias, numbers[alias])
            elif alias in shown:
                self._client.delete_registered_model_alias(self._model_name, alias)

    @_reported
    def show_version(self, version: ModelVersionResponse) -> str:
        """Create or update one version with its tags and metrics; repeating changes nothing.

        Returns:
            MLflow's number of the version.
        """
        facts = version.run_metadata
        trained = version.get_artifact("trained_model")
        run_id = str(trained.run_metadata.get(MLFLOW_RUN_KEY, "")) if trained else ""
        number = self._number(version.number) or self._create(version, run_id)
        for key, value in facts.items():
            if isinstance(value, str):
                self._client.set_model_version_tag(self._model_name, number, key, value)
        if run_id:
            for key, value in facts.items():
                if key.startswith(versions.METRIC_PREFIX) and isinstance(value, float):
                    self._client.log_metric(run_id, key, value)
        return number

    @_reported
    def show_log_head(self, number: int, sha256: str) -> None:
        """Keep the end of the audit log where whoever cuts the log does not think of it."""
        if self._is_known():
            self._client.set_registered_model_tag(self._model_name, _HEAD_TAG, f"{number}:{sha256}")

    @_reported
    def log_head(self) -> tuple[int, str] | None:
        """Return number and SHA-256 of the last entry that was kept; None if none was."""
        if not self._is_known():
            return None
        tag = self._client.get_registered_model(self._model_name).tags.get(_HEAD_TAG)
        if tag is None:
            return None
        number, sha256 = tag.split(":", 1)
        return int(number), sha256

    def _is_known(self) -> bool:
        return bool(self._client.search_registered_models(f"name = '{self._model_name}'"))

    def _number(self, version: int) -> str | None:
        for found in self._client.search_model_versions(f"name = '{self._model_name}'"):
            if found.tags.get(_VERSION_TAG) == str(version):
                return str(found.version)
        return None

    def _create(self, version: ModelVersionResponse, run_id: str) -> str:
        if not self._is_known():
            self._client.create_registered_model(self._model_name)
        predictor = version.get_artifact(versions.PREDICTOR)
        created = self._client.create_model_version(
            self._model_name,
            source=predictor.uri if predictor else "",
            run_id=run_id or None,
            tags={_VERSION_TAG: str(version.number)},
        )
        return str(created.version)


def _connect() -> "MlflowClient":
    tracker = Client().active_stack.experiment_tracker
    if tracker is None or tracker.flavor != "mlflow":
        raise StackError(
            "The active stack has no MLflow experiment tracker, so that nothing can be mirrored to "
            "the MLflow registry. Run: python -m stacks apply local --set"
        )
    from mlflow import MlflowClient

    tracker.configure_mlflow()  # type: ignore[attr-defined]
    return MlflowClient()
