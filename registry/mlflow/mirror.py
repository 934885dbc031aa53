"""Mirrors ZenML's versions to the MLflow registry of the active stack: models, tags and aliases.

Everything there is derived from ZenML, so that a lost mirror can be rebuilt.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from zenml.client import Client
from zenml.models import ModelVersionResponse

from cv_factory.errors import ArtifactError, StackError
from registry import versions
from registry.mlflow.tracking import MLFLOW_RUN_KEY

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_log = logging.getLogger(__name__)
#: Loggers of MLflow that report each step of storing a model.
_TALKATIVE_LOGGERS = ("mlflow.pyfunc", "mlflow.store.model_registry.abstract_store")

_P = ParamSpec("_P")
_R = TypeVar("_R")
_VERSION_TAG = "zenml_version"
#: Tag of the registered model with the number and the hash of the audit log's end.
HEAD_TAG = "audit_log_head"
_MIRRORED_STAGES = ("staging", "production")
#: Source of an MLflow version that has a logged model; those of earlier releases have none.
_LOGGED_MODEL = "models:/"


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
        """Make aliases agree with the stages, adding versions and models that are missing."""
        numbers = {
            stage: self._find_or_create(versions.get_version(self._model_name, number))
            for number, stage in stages.items()
            if stage in _MIRRORED_STAGES
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
        mirrored = {
            str(v.version): v
            for v in self._client.search_model_versions(f"name = '{self._model_name}'")
        }
        return {
            alias: self._mirrored_number(mirrored.get(str(number)))
            for alias, number in aliases.items()
            if alias in _MIRRORED_STAGES
        }

    def _mirrored_number(self, mirrored: "ModelVersion | None") -> int | None:
        """Return ZenML's number of the version that one of MLflow mirrors; None if it mirrors none.

        Tags can be changed by anybody: the number counts if the model is of that version.
        """
        number = mirrored.tags.get(_VERSION_TAG, "") if mirrored else ""
        if mirrored is None or not number.isdigit():
            return None
        version = next(
            (v for v in versions.list_versions(self._model_name) if v.number == int(number)), None
        )
        if version is not None and not self._is_model_of(mirrored, version):
            return None
        return int(number)

    def _is_model_of(self, mirrored: "ModelVersion", version: ModelVersionResponse) -> bool:
        """Return whether the logged model is of a version's predictor, by its fixed parameter."""
        if not _has_model(mirrored):
            return True
        from mlflow.exceptions import MlflowException

        predictor = versions.predictor_fingerprint(version)
        try:
            model = self._client.get_logged_model(str(mirrored.source).removeprefix(_LOGGED_MODEL))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return bool(model.params.get(versions.PREDICTOR, predictor) == predictor)

    @_translate_mlflow_errors
    def update_version(self, version: ModelVersionResponse) -> str:
        """Create or update one version with its model and tags; repeating changes nothing.

        Returns:
            MLflow's number of the version.
        """
        number = self._find_or_create(version)
        present = self._client.get_model_version(self._model_name, number).tags
        for key, text in _tags(version).items():
            if present.get(key) != text:
                self._client.set_model_version_tag(self._model_name, number, key, text)
        return number

    @_translate_mlflow_errors
    def store_log_head(self, number: int, sha256: str) -> None:
        """Store the end of the audit log a second time, so that a cut log shows."""
        if self._model_exists():
            self._client.set_registered_model_tag(self._model_name, HEAD_TAG, f"{number}:{sha256}")

    @_translate_mlflow_errors
    def log_head(self) -> tuple[int, str] | None:
        """Return number and SHA-256 of the last stored log head; None without a readable one."""
        if not self._model_exists():
            return None
        tag = self._client.get_registered_model(self._model_name).tags.get(HEAD_TAG, "")
        number, _, sha256 = tag.partition(":")
        with suppress(ValueError):
            return int(number), sha256
        return None

    def _model_exists(self) -> bool:
        return bool(self._client.search_registered_models(f"name = '{self._model_name}'"))

    def _find_or_create(self, version: ModelVersionResponse) -> str:
        """Return MLflow's number of a version, created anew where the present one has no model."""
        mirrored = self._find(version)
        if mirrored is not None and _has_model(mirrored):
            return str(mirrored.version)
        if not self._model_exists():
            self._client.create_registered_model(self._model_name)
        run = self._find_run(version)
        model_id = None
        try:
            model_id = self._log_model(version, run)
        except ArtifactError as error:
            _log.warning("MLflow cannot load %s %d: %s", self._model_name, version.number, error)
            if mirrored is not None:
                return str(mirrored.version)
        created = self._client.create_model_version(
            self._model_name,
            source=f"{_LOGGED_MODEL}{model_id}" if model_id else "predictor-is-gone",
            run_id=run.info.run_id if run else None,
            tags=_tags(version),
            model_id=model_id,
        )
        return str(created.version)

    def _find(self, version: ModelVersionResponse) -> "ModelVersion | None":
        """Return MLflow's version, one with a model before one that an earlier release made.

        ZenML gives a deleted version's number again, so the predictor is compared as well.
        """
        predictor = versions.predictor_fingerprint(version)
        matches = [
            mirrored
            for mirrored in self._client.search_model_versions(f"name = '{self._model_name}'")
            if mirrored.tags.get(_VERSION_TAG) == str(version.number)
            and mirrored.tags.get(versions.PREDICTOR, predictor) == predictor
            and self._is_model_of(mirrored, version)
        ]
        return max(matches, key=_has_model, default=None)

    def _log_model(self, version: ModelVersionResponse, run: "Run | None") -> str:
        """Log a version's predictor as an MLflow model; return the model's id."""
        from registry.mlflow.logged_model import save_mlflow_model

        predictor = versions.load_predictor(version)
        experiment = run.info.experiment_id if run else self._own_experiment()
        model = self._client.create_logged_model(
            experiment,
            name=f"{self._model_name}-{version.number}",
            source_run_id=run.info.run_id if run else None,
            tags={_VERSION_TAG: str(version.number), "predictor": predictor.fingerprint},
            params={versions.PREDICTOR: predictor.fingerprint},
        )
        with TemporaryDirectory(prefix="cv-factory-") as scratch:
            directory = Path(scratch, "model")
            save_mlflow_model(predictor, directory, model.model_id)
            self._client.log_model_artifacts(model.model_id, str(directory))
        self._client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def _find_run(self, version: ModelVersionResponse) -> "Run | None":
        """Return the MLflow run that registered or trained a version; None if it was deleted."""
        from mlflow.exceptions import MlflowException

        model = version.get_artifact("trained_model")
        run_id = version.run_metadata.get(MLFLOW_RUN_KEY)
        if not run_id and model is not None:
            run_id = model.run_metadata.get(MLFLOW_RUN_KEY)
        if not run_id:
            return None
        try:
            return self._client.get_run(str(run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _own_experiment(self) -> str:
        """Return the experiment of models whose run is gone; create it if there is none yet."""
        experiment = self._client.get_experiment_by_name(self._model_name)
        if experiment is not None:
            return str(experiment.experiment_id)
        return str(self._client.create_experiment(self._model_name))


def _has_model(mirrored: "ModelVersion") -> bool:
    return str(mirrored.source).startswith(_LOGGED_MODEL)


def _tags(version: ModelVersionResponse) -> dict[str, str]:
    texts = {key: text for key, text in version.run_metadata.items() if isinstance(text, str)}
    return {
        **texts,
        _VERSION_TAG: str(version.number),
        versions.PREDICTOR: versions.predictor_fingerprint(version),
    }


def _connect() -> "MlflowClient":
    tracker = Client().active_stack.experiment_tracker
    if tracker is None or tracker.flavor != "mlflow":
        raise StackError(
            "The active stack has no MLflow experiment tracker, whose registry mirrors versions. "
            "Run: python -m stacks apply local --set"
        )
    from mlflow import MlflowClient

    for name in _TALKATIVE_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    tracker.configure_mlflow()  # type: ignore[attr-defined]
    return MlflowClient()
