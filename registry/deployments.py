"""What becomes of a version that is served: which one is next, its bundle, its way to production.

The model deployer of the active stack starts and stops services; the registry says what they are.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.models import ModelVersionResponse

from cv_factory.config.serving import ServingConfig
from cv_factory.deployment.deployment import Deployment
from cv_factory.deployment.lock import turn
from cv_factory.deployment.verify import Proof
from cv_factory.errors import StackError
from cv_factory.evaluation.registration import Registration
from cv_factory.inference.predictor import Predictor
from cv_factory.serving.bundle import Bundle
from registry import versions
from registry.model_registry import ModelRegistry, fingerprint_of
from registry.stages import TransitionRefusedError


class Service(Protocol):
    """A service of a model deployer."""

    uuid: UUID
    config: Any

    @property
    def client_url(self) -> str:
        """Where clients find the model, without a path."""

    @property
    def is_running(self) -> bool:
        """Whether it answers."""

    @property
    def is_put_up(self) -> bool:
        """Whether it was ever started and proven."""


class BundleDeployer(Protocol):
    """A model deployer that serves bundles, such as the flavor ``bento``."""

    def services(self, model_name: str) -> list[Any]:
        """Return the services of a model, the newest first."""

    def put_up(self, bundle: Bundle, port: int | None = None) -> Any:
        """Start and prove a service; it is given no requests yet."""

    def shares(self, model_name: str) -> dict[UUID, float]:
        """Return the share of the requests that each service of a model is given."""

    def route(self, model_name: str, weights: Mapping[UUID, float]) -> None:
        """Give a model's requests to these services and to no others."""

    def prove(self, service: Any, bundle: Bundle) -> Proof:
        """Send the golden samples to a model's address."""

    def set_stage(self, service: Any, stage: str) -> None:
        """Let a service say which stage its version is in."""

    def bundle_of(self, service: Any) -> Bundle:
        """Return what a service was put up with."""

    def delete_model_server(self, uuid: UUID) -> None:
        """Stop a service wholly and forget it."""


def active_deployer() -> BundleDeployer:
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


def find_deployer() -> BundleDeployer | None:
    """Return the model deployer of the active stack; None where none serves bundles."""
    deployer: Any = Client().active_stack.model_deployer
    return deployer if hasattr(deployer, "put_up") else None


def deploying(model_name: str) -> AbstractContextManager[None]:
    """Return a block in which this process alone deploys a model from this machine.

    Raises:
        BusyError: At its start, if another process does; it is named.
    """
    return turn(Path(GlobalConfiguration().local_stores_path), model_name)


def next_version(registry: ModelRegistry, number: int | None) -> ModelVersionResponse:
    """Return the version to deploy: a certain one, or the one in staging, or in production.

    Raises:
        RegistryError: There is none.
        TransitionRefusedError: It may not be in production, and is not.
    """
    if number is not None:
        found = versions.get_version(registry.model_name, number)
    else:
        staged = [n for n, stage in registry.stages().items() if stage == "staging"]
        if staged:
            found = versions.get_version(registry.model_name, staged[0])
        else:
            found = versions.serving_version(registry.model_name, None)
    if found.stage != "production":
        registry.require_promotable(found)
    return found


def bundle_facts(version: ModelVersionResponse) -> dict[str, Any]:
    """Return what a bundle says of its version, as plain values; the time is the version's own."""
    facts = version.run_metadata
    metrics = {
        key.removeprefix(versions.METRIC_PREFIX): float(value)
        for key, value in facts.items()
        if key.startswith(versions.METRIC_PREFIX) and isinstance(value, float | int)
    }
    return {
        "model_name": version.model.name,
        "version": str(version.number),
        "created": version.created.isoformat(timespec="seconds"),
        "run_id": str(facts["pipeline_run"]) if "pipeline_run" in facts else None,
        "registration_id": str(version.id),
        "git_commit": str(facts["git_commit"]) if "git_commit" in facts else None,
        "metrics": metrics,
    }


def make_bundle(predictor: Predictor, serving: ServingConfig, facts: Mapping[str, Any]) -> Bundle:
    """Bundle a predictor: the same inputs give the same bytes."""
    version = versions.get_version(facts["model_name"], int(facts["version"]))
    return Bundle(predictor, serving, card_html=_card(version), **facts)


def deploy(bundle: Bundle, port: int | None, canary_share: float | None) -> Deployment:
    """Put a bundle up beside what is served, prove it, and give it its share of the requests.

    Raises:
        CVFactoryError: It does not start or answers wrongly; what was served before still is.
    """
    deployer, name = active_deployer(), bundle.model_name
    before, running = deployer.shares(name), {s.uuid for s in deployer.services(name)}
    service = deployer.put_up(bundle, port)
    deployment = Deployment(
        model_name=name,
        version=bundle.version,
        predictor=bundle.predictor.fingerprint,
        service_id=str(service.uuid),
        url=service.client_url,
        share=canary_share or 1.0,
        replaced={str(uuid): share for uuid, share in before.items() if uuid != service.uuid},
        is_new=service.uuid not in running,
        stage="staging",
    )
    with restored_on_failure(deployment):
        deployer.set_stage(service, "staging")
        deployer.route(name, _weights(deployment))
    return deployment


@contextmanager
def restored_on_failure(deployment: Deployment) -> Iterator[None]:
    """Give the requests back to what was served before if the block fails in any way."""
    try:
        yield
    except BaseException:
        deployer, own = active_deployer(), UUID(deployment.service_id)
        running = {s.uuid for s in deployer.services(deployment.model_name) if s.is_running}
        before = {UUID(n): share for n, share in deployment.replaced.items()}
        kept = {uuid: share for uuid, share in before.items() if uuid in running}
        if kept:
            deployer.route(deployment.model_name, kept)
        if deployment.is_new:
            deployer.delete_model_server(own)
        raise


def prove(deployment: Deployment, bundle: Bundle) -> Proof | None:
    """Prove a deployment through the model's address; a canary was proven on its own alone.

    Raises:
        ProofError: An answer is missing, wrong, or of another version.
    """
    if deployment.share < 1.0:
        return None
    deployer = active_deployer()
    return deployer.prove(_service(deployer, deployment), bundle)


def promote(deployment: Deployment, who: str, why: str, *, is_rollback: bool) -> Deployment:
    """Move the deployed version to production, and stop every other service of the model.

    Raises:
        TransitionRefusedError: It may not be in production.
    """
    registry, number = ModelRegistry(deployment.model_name), int(deployment.version)
    if is_rollback:
        registry.rollback(who, why, number)
    else:
        registry.promote(number, who, why)
    deployer = active_deployer()
    deployer.set_stage(_service(deployer, deployment), "production")
    for service in deployer.services(deployment.model_name):
        if str(service.uuid) != deployment.service_id:
            deployer.delete_model_server(service.uuid)
    return deployment.promoted("production")


def is_served(version: ModelVersionResponse, port: int | None) -> str | None:
    """Return where a version is all that is served of its model; None if it is not."""
    deployer = active_deployer()
    services = deployer.services(version.model.name)
    if len(services) != 1 or deployer.shares(version.model.name).keys() != {services[0].uuid}:
        return None
    (service,) = services
    same = (service.config.model_version, service.config.predictor)
    if same != (str(version.number), fingerprint_of(version)) or not service.is_running:
        return None
    if port is not None and service.config.port != port:
        return None
    return str(service.client_url)


def deployed_bundle(model_name: str) -> Bundle | None:
    """Return what was deployed last of a model; None if nothing is.

    Raises:
        ArtifactError: The deployed bundle is damaged.
    """
    deployer = find_deployer()
    if deployer is None:
        return None
    put_up = (service for service in deployer.services(model_name) if service.is_put_up)
    last = next(put_up, None)
    return deployer.bundle_of(last) if last is not None else None


def deployed_port(model_name: str) -> int | None:
    """Return the port where a model is reached; None if it has none, or is not deployed."""
    services = active_deployer().services(model_name)
    return int(services[0].config.port) or None if services else None


def _weights(deployment: Deployment) -> dict[UUID, float]:
    """Return the shares of a deployment and, beside a canary, of what was served before."""
    own = UUID(deployment.service_id)
    if deployment.share == 1.0:
        return {own: 1.0}
    if not deployment.replaced:
        raise TransitionRefusedError(
            "A canary takes a share beside the version in production, and none is deployed: leave "
            "out endpoint.canary_share."
        )
    rest = (1.0 - deployment.share) / sum(deployment.replaced.values())
    others = {UUID(name): share * rest for name, share in deployment.replaced.items()}
    return {own: deployment.share, **others}


def _service(deployer: BundleDeployer, deployment: Deployment) -> Any:
    services = {str(s.uuid): s for s in deployer.services(deployment.model_name)}
    if deployment.service_id not in services:
        raise StackError(f"The service {deployment.service_id} was deleted in the meantime.")
    return services[deployment.service_id]


def _card(version: ModelVersionResponse) -> str | None:
    artifact = version.get_artifact("registration")
    registration = artifact.load() if artifact is not None else None
    return registration.card_html if isinstance(registration, Registration) else None
