"""Audit entries for what ZenML's own commands and interface do to services."""

from typing import Any, Protocol
from uuid import UUID

from registry.model_registry import ModelRegistry
from registry.permissions import TransitionRefusedError
from registry.standing import describe_unfit

_REASONS = {
    "started": "zenml model-deployer models start",
    "stopped": "zenml model-deployer models stop",
    "deleted": "zenml model-deployer models delete",
    "deployed": "deploy_model of the model deployer",
}


class RecordedService(Protocol):
    """Record of a service of a model deployer."""

    uuid: UUID
    config: Any


def require_servable(model_name: str, version: str, predictor: str) -> None:
    """Refuse what ZenML's own commands may not serve either; what no run registered is recorded.

    Raises:
        TransitionRefusedError: A gate failed and is not overridden, or the version was judged with
            another predictor.
    """
    standing = ModelRegistry(model_name).gate_standing(int(version))
    if standing.failed:
        raise TransitionRefusedError(describe_unfit(standing, model_name))
    if standing.predictor not in ("", predictor):
        raise TransitionRefusedError(
            f"{model_name} version {version} was judged with the predictor "
            f"{standing.predictor[:16]}, and this is {predictor[:16]}. Run: python run.py "
            f"--pipeline deployment --model {model_name}"
        )


def record_service_event(kind: str, service: RecordedService) -> None:
    """Record that a service was started, stopped, deleted or deployed.

    Args:
        kind: ``started``, ``stopped``, ``deleted`` or ``deployed``.
        service: The service.

    Raises:
        CVFactoryError: The audit log is damaged, or cannot be written; the service stays as it is.
    """
    config = service.config
    detail = {
        "version": int(config.model_version),
        "predictor": config.predictor,
        "service": str(service.uuid),
    }
    ModelRegistry(config.model_name).log.record(kind, None, _REASONS[kind], detail)
