"""Deployment of versions: choose one, build its bundle, set its weight, promote it.

The model deployer of the active stack starts and stops services; the registry says what they are.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.enums import ServiceState, StackComponentType
from zenml.models import ModelVersionResponse
from zenml.services.service import ZENM_ENDPOINT_PREFIX
from zenml.utils.pagination_utils import depaginate

from cv_factory.config.deployment import EndpointConfig
from cv_factory.config.serving import LogConfig, ServingConfig
from cv_factory.deployment.deployment import Deployment
from cv_factory.deployment.endpoint import Endpoint
from cv_factory.deployment.lock import deployment_lock
from cv_factory.deployment.traffic import Share, Traffic
from cv_factory.deployment.verify import VerificationResult
from cv_factory.errors import ArtifactError, StackError
from cv_factory.inference.predictor import Predictor
from cv_factory.serving.bundle import Bundle
from registry import versions
from registry.artifact_loader import load_artifact
from registry.model_registry import ModelRegistry
from registry.next_step import find_production
from registry.permissions import TransitionRefusedError
from registry.standing import GateStanding

logger = logging.getLogger(__name__)


class Service(Protocol):
    """Record of a service of a model deployer."""

    uuid: UUID
    config: Any

    @property
    def service_name(self) -> str:
        """Name of the service in its endpoint."""

    @property
    def client_url(self) -> str:
        """Address of the model, without a path."""

    @property
    def is_running(self) -> bool:
        """Whether it answers."""

    @property
    def is_deployed(self) -> bool:
        """Whether it was ever started and verified."""


@runtime_checkable
class ModelDeployer(Protocol):
    """A model deployer that keeps records of services, such as the flavor ``bento``.

    Their ``Endpoint`` starts, verifies and stops them.
    """

    def services(self, model_name: str) -> list[Any]:
        """Return the services of a model, the newest first."""

    def service_endpoint(self, service: Any) -> Endpoint:
        """Return the endpoint of a service."""

    def check_settings(self, model_name: str, settings: EndpointConfig) -> None:
        """Check that a model can be reached as its settings say, before anything is done."""

    def deploy(self, bundle: Bundle, port: int | None = None) -> Any:
        """Start and verify a service; it is given no requests yet."""

    def traffic(self, model_name: str) -> Traffic:
        """Return how a model's requests are distributed, by the ids of its services."""

    def set_traffic(self, model_name: str, traffic: Traffic) -> None:
        """Distribute a model's requests among these services, by their ids."""

    def remove(self, service: Any) -> None:
        """Stop a service with all its processes and delete its record."""


def active_deployer() -> ModelDeployer:
    """Return the model deployer of the active stack.

    Raises:
        StackError: There is none, or it does not serve bundles.
    """
    deployer = find_deployer()
    if deployer is None:
        raise StackError(
            "The active stack has no model deployer that serves bundles. Run: python -m stacks "
            "apply local --set"
        )
    return deployer


def find_deployer() -> ModelDeployer | None:
    """Return the model deployer of the active stack; None where none serves bundles."""
    deployer: Any = Client().active_stack.model_deployer
    return deployer if isinstance(deployer, ModelDeployer) else None


@dataclass(frozen=True)
class ServiceElsewhere:
    """Record of a service of another model deployer than that of the active stack.

    Attributes:
        version: Number of the version, as text.
        predictor: Fingerprint of the predictor.
        flavor: Of the model deployer.
        stack: A stack that has it, or ``STACK`` where none does any more.
    """

    version: str
    predictor: str
    flavor: str
    stack: str


def services_elsewhere(model_name: str) -> tuple[ServiceElsewhere, ...]:
    """Return a model's services of other model deployers, but those that were stopped."""
    client = Client()
    deployer = client.active_stack_model.components.get(StackComponentType.MODEL_DEPLOYER)
    own_flavor = deployer[0].flavor_name if deployer else None
    records = depaginate(
        client.list_services,
        service_name=f"startswith:{ZENM_ENDPOINT_PREFIX}{model_name}-",
        hydrate=True,
    )
    return tuple(
        ServiceElsewhere(
            record.config.get("model_version", ""),
            record.config.get("predictor", ""),
            record.service_type.flavor,
            _stack_with_deployer(record.service_type.flavor),
        )
        for record in records
        if record.service_type.flavor != own_flavor
        and record.config.get("model_name") == model_name
        and record.admin_state == ServiceState.ACTIVE
    )


def _stack_with_deployer(flavor: str) -> str:
    for stack in depaginate(Client().list_stacks, hydrate=True):
        deployers = stack.components.get(StackComponentType.MODEL_DEPLOYER, [])
        if any(deployer.flavor_name == flavor for deployer in deployers):
            return str(stack.name)
    return "STACK"


def require_reachable_services(model_name: str) -> None:
    """Refuse to change production from a stack that does not reach what serves the model.

    Raises:
        TransitionRefusedError: Another model deployer serves it.
    """
    for service in services_elsewhere(model_name):
        raise TransitionRefusedError(
            f"{model_name} is served by the model deployer {service.flavor}, which the active "
            f"stack does not have. Give the command with: --stack {service.stack}"
        )


def lock_deployments(model_name: str) -> AbstractContextManager[None]:
    """Return the lock with which this process alone deploys a model from this machine.

    Raises:
        BusyError: At its start, if another process does; it is named.
    """
    return deployment_lock(Path(GlobalConfiguration().local_stores_path), model_name)


def next_version(
    registry: ModelRegistry, number: int | None, who: str | None = None
) -> ModelVersionResponse:
    """Return the version to deploy: ``number``, or the one in staging, or in production.

    Args:
        registry: The model.
        number: Of the version; None to choose.
        who: Name that the audit log is to hold; None for the authenticated user.

    Raises:
        RegistryError: There is none.
        TransitionRefusedError: Its gates, or the way it came to its stage, do not let it serve.
    """
    if number is not None:
        version = registry.get_version(number)
    else:
        staged = [n for n, stage in registry.stages().items() if stage == "staging"]
        if staged:
            version = registry.get_version(staged[0])
        else:
            version = find_production(registry, None)
    registry.require_deployable(version, who)
    return version


def bundle_metadata(version: ModelVersionResponse) -> dict[str, Any]:
    """Return the arguments of a ``Bundle`` that describe its version, as plain values."""
    metadata = version.run_metadata
    metrics = {
        key.removeprefix(versions.METRIC_PREFIX): float(value)
        for key, value in metadata.items()
        if key.startswith(versions.METRIC_PREFIX) and isinstance(value, float | int)
    }
    return {
        "model_name": version.model.name,
        "version": str(version.number),
        "created": version.created.isoformat(timespec="seconds"),
        "run_id": str(metadata[versions.RUN]) if versions.RUN in metadata else None,
        "registration_id": str(version.id),
        "git_commit": str(metadata["git_commit"]) if "git_commit" in metadata else None,
        "metrics": metrics,
    }


def build_bundle(
    predictor: Predictor, serving: ServingConfig, metadata: Mapping[str, Any]
) -> Bundle:
    """Return a predictor's bundle with its model card; equal inputs give equal bytes.

    Raises:
        TransitionRefusedError: The version is not fit, or is registered with another predictor.
    """
    from registry.card_content import describe_override

    registry, number = ModelRegistry(metadata["model_name"]), int(metadata["version"])
    standing = registry.require_fit(number, predictor.fingerprint)
    return Bundle(
        predictor,
        serving,
        reference=versions.load_reference(registry.get_version(number)),
        card_html=_card(registry, number, standing),
        overrides=[describe_override(override) for override in standing.overrides],
        **metadata,
    )


def deploy(bundle: Bundle, settings: EndpointConfig, who: str, why: str) -> Deployment:
    """Deploy a bundle beside the present services, verify it, and give it its share.

    Raises:
        CVFactoryError: It does not start or answers wrongly; the previous traffic is restored.
    """
    deployer, name = active_deployer(), bundle.model_name
    deployer.check_settings(name, settings)
    before, existing = deployer.traffic(name), {s.uuid for s in deployer.services(name)}
    service = deployer.deploy(bundle, settings.port)
    deployment = Deployment(
        model_name=name,
        version=bundle.version,
        predictor=bundle.predictor.fingerprint,
        service_id=str(service.uuid),
        url=service.client_url,
        share=settings.share,
        replaced=before,
        is_new=service.uuid not in existing,
        stage="staging",
        arm=settings.arm,
    )
    with restore_on_failure(deployment):
        deployer.service_endpoint(service).set_stage(service.service_name, "staging")
        deployer.set_traffic(name, _target_traffic(deployment).with_settings(settings))
        deployment = replace(deployment, url=service.client_url)  # TLS may have begun or ended
        if settings.arm != "stable":
            _record(ModelRegistry(name), settings.arm, deployment, who, why)
    return deployment


def _record(registry: ModelRegistry, kind: str, deployment: Deployment, who: str, why: str) -> None:
    """Record in the audit log that a deployment is given requests."""
    detail = {
        "version": int(deployment.version),
        "predictor": deployment.predictor,
        "service": deployment.service_id,
        "url": deployment.url,
        "share": deployment.share,
    }
    registry.log.record(kind, who, why, detail)


@contextmanager
def restore_on_failure(deployment: Deployment) -> Iterator[None]:
    """Restore the traffic before a deployment if the block raises or is interrupted."""
    with ExitStack() as undo:
        undo.callback(_restore, deployment)
        yield
        undo.pop_all()


def _restore(deployment: Deployment) -> None:
    """Restore the traffic before a deployment, and delete its service if it is new."""
    deployer = active_deployer()
    services = {str(s.uuid): s for s in deployer.services(deployment.model_name)}
    running = {uuid for uuid, service in services.items() if service.is_running}
    before = deployment.replaced.only(running)
    try:
        if before.weights:
            deployer.set_traffic(deployment.model_name, before)
    finally:
        if deployment.is_new and deployment.service_id in services:
            deployer.remove(services[deployment.service_id])


def verify(deployment: Deployment, bundle: Bundle) -> VerificationResult | None:
    """Verify a deployment through the model's address; canary and shadow were on their own.

    Raises:
        VerificationError: An answer is missing, wrong, or of another version.
    """
    if deployment.arm != "stable":
        return None
    service, endpoint = _load_service(active_deployer(), deployment)
    return endpoint.verify(service.service_name, bundle)


def promote(deployment: Deployment, who: str, why: str, *, is_rollback: bool) -> Deployment:
    """Move the deployed version to production, and stop every other service of the model.

    Raises:
        TransitionRefusedError: It is not staged, or lacks its approval: the previous service gets
            the requests back.
    """
    registry, number = ModelRegistry(deployment.model_name), int(deployment.version)
    with restore_on_failure(deployment):
        if is_rollback:
            registry.rollback(who, why, number)
        else:
            registry.promote(number, who, why, predictor=deployment.predictor)
    # It is in production now: whatever fails from here on, it goes on serving.
    _record(registry, "deployed", deployment, who, why)
    deployer = active_deployer()
    promoted, endpoint = _load_service(deployer, deployment)
    endpoint.set_stage(promoted.service_name, "production")
    for service in deployer.services(deployment.model_name):
        if str(service.uuid) != deployment.service_id:
            deployer.remove(service)
    return deployment.with_stage("production")


def withdraw(registry: ModelRegistry, number: int, who: str | None, why: str) -> tuple[str, ...]:
    """End a canary or shadow: what it was given goes to the others, and its service is deleted.

    Returns:
        The versions that are given the requests now.

    Raises:
        TransitionRefusedError: It is neither on the active stack.
    """
    deployer = active_deployer()
    withdrawn, serving = redirect_requests(registry, number)
    # Before the services are gone: the command can be given again where this fails.
    detail = {"version": number, "predictor": withdrawn[0].config.predictor}
    registry.log.record("withdrawn", who, why, detail)
    for service in withdrawn:
        deployer.remove(service)
    return tuple(service.config.model_version for service in serving)


def redirect_requests(registry: ModelRegistry, number: int) -> tuple[list[Service], list[Service]]:
    """Give what a canary or shadow is given to the others; its service goes on running.

    Returns:
        Its services, and those that are given the requests now.

    Raises:
        TransitionRefusedError: It is neither on the active stack.
    """
    deployer, name = active_deployer(), registry.model_name
    services: dict[str, Service] = {str(s.uuid): s for s in deployer.services(name)}
    withdrawn = [s for s in services.values() if s.config.model_version == str(number)]
    traffic = deployer.traffic(name)
    others = traffic.only(traffic.shares.keys() - {str(service.uuid) for service in withdrawn})
    serving = [services[uuid] for uuid, weight in others.weights.items() if weight > 0]
    if not withdrawn or not serving or registry.stages().get(number) == "production":
        raise TransitionRefusedError(
            f"Version {number} of {name} is no canary or shadow on this stack. What serves: "
            f"python run.py status --model {name}"
        )
    deployer.set_traffic(name, others)
    return withdrawn, serving


def served_url(version: ModelVersionResponse, settings: EndpointConfig) -> str | None:
    """Return the address of a version if it alone is served of its model, as set, else None."""
    deployer = active_deployer()
    services = deployer.services(version.model.name)
    if len(services) != 1:
        return None
    (service,) = services
    # By the endpoint and not by the records: a service without a record may have requests.
    traffic = deployer.service_endpoint(service).traffic()
    if traffic.shares.keys() != {service.service_name} or traffic != traffic.with_settings(
        settings
    ):
        return None
    same = (service.config.model_version, service.config.predictor)
    if (
        same != (str(version.number), versions.predictor_fingerprint(version))
        or not service.is_running
    ):
        return None
    if settings.port is not None and service.config.port != settings.port:
        return None
    return str(service.client_url)


def deployed_bundle(model_name: str) -> Bundle | None:
    """Return the bundle of a model that was deployed last; None if none is.

    Raises:
        ArtifactError: The deployed bundle is damaged.
    """
    deployer = find_deployer()
    if deployer is None:
        return None
    for service in deployer.services(model_name):
        if service.is_deployed:
            return deployer.service_endpoint(service).load_bundle(service.service_name)
    return None


def log_folders(model_name: str) -> list[Path]:
    """Return the folders into which the deployed services of a model log predictions."""
    logs = load_log_configs(model_name)
    return sorted({Path(log.predictions) for log in logs if log.predictions})


def image_folders(model_name: str) -> list[Path]:
    """Return the folders in which the deployed services of a model keep images."""
    return sorted({Path(log.images.folder) for log in load_log_configs(model_name) if log.images})


def load_log_configs(model_name: str) -> list[LogConfig]:
    """Return how the deployed services of a model log."""
    return [bundle.serving.log for bundle in load_bundles(model_name)]


def load_bundles(model_name: str) -> Iterator[Bundle]:
    """Yield the bundles of the deployed services of a model."""
    deployer = find_deployer()
    if deployer is None:
        return
    for service in deployer.services(model_name):
        if service.is_deployed:
            yield deployer.service_endpoint(service).load_bundle(service.service_name)


def _target_traffic(deployment: Deployment) -> Traffic:
    """Return the traffic with a deployment's service and, beside a canary or shadow, the previous.

    Raises:
        TransitionRefusedError: There is nothing that a canary or shadow could stand beside.
    """
    if deployment.arm == "stable":
        return deployment.replaced.all_to(deployment.service_id)
    try:
        share = Share(deployment.share, deployment.arm)
        return deployment.replaced.beside_others(deployment.service_id, share)
    except ValueError:
        raise TransitionRefusedError(
            f"endpoint.{deployment.arm}_share needs a deployed version in production, and there is "
            f"none. Remove endpoint.{deployment.arm}_share."
        ) from None


def _load_service(deployer: ModelDeployer, deployment: Deployment) -> tuple[Service, Endpoint]:
    """Return the record of a deployment's service, and its endpoint."""
    services = {str(s.uuid): s for s in deployer.services(deployment.model_name)}
    if deployment.service_id not in services:
        raise StackError(
            f"The service {deployment.service_id} was deleted during the deployment. Run it again."
        )
    service = services[deployment.service_id]
    return service, deployer.service_endpoint(service)


def _card(registry: ModelRegistry, number: int, standing: GateStanding) -> str | None:
    """Return the card of the last registration or, where a gate is overridden, one that says so.

    None where that registration was deleted: a rollback must not depend on it.
    """
    from cv_factory.evaluation.registration import Registration
    from cv_factory.evaluation.reports.model_card import render_html
    from registry.card_content import load_card_content

    if standing.overrides:
        return render_html(load_card_content(registry, number))
    # Not linked to the version: the step that registers it stores its output later.
    same = [
        f"model:{registry.model_name}",
        f"version:{number}",
        f"predictor_fingerprint:{standing.predictor}",
    ]
    stored = Client().list_artifact_versions(
        artifact="registration", run_metadata=same, sort_by="desc:created", size=1, hydrate=True
    )
    try:
        return load_artifact(stored.items[0], Registration).card_html if stored.items else None
    except ArtifactError as error:
        logger.warning("%s version %s has no model card: %s", registry.model_name, number, error)
        return None
