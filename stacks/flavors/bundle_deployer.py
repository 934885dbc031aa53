"""What the model deployers have in common: services of bundles, as ZenML records them.

Where and how a service runs is each deployer's own business.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, TypeVar, cast
from uuid import UUID

from zenml.client import Client
from zenml.enums import ServiceState
from zenml.model_deployers import BaseModelDeployer
from zenml.model_deployers.base_model_deployer import get_model_version_id_if_exists
from zenml.models.v2.misc.service import ServiceType
from zenml.services import ServiceConfig, ServiceStatus
from zenml.services.service import ZENM_ENDPOINT_PREFIX, BaseDeploymentService, BaseService
from zenml.steps import get_step_context
from zenml.utils.pagination_utils import depaginate

from cv_factory.serving.bundle import Bundle

ServiceOfBundle = TypeVar("ServiceOfBundle", bound="BundleService")


class BundleServiceConfig(ServiceConfig):
    """What ZenML stores of a service of any deployer.

    Attributes:
        port: Where the model is reached; 0 where it has no port.
        predictor: Fingerprint of the predictor that is served.
        bundle: Directory of the bundle to deploy, where it is deployed by ``deploy_model``.
    """

    port: int = 0
    predictor: str = ""
    bundle: str = ""


class BundleService(BaseDeploymentService):
    """One version of a model, served, as ZenML sees it."""

    config: BundleServiceConfig
    status: ServiceStatus

    @property
    @abstractmethod
    def client_url(self) -> str:
        """Where clients find the model, whatever version answers, without a path."""

    @property
    def is_put_up(self) -> bool:
        """Whether it was ever started and proven; else it is under way, or that was killed."""
        return self.admin_state != ServiceState.PENDING_STARTUP

    def get_healthcheck_url(self) -> str | None:
        """As ``healthcheck_url``: ZenML looks at the endpoint's monitor, which there is none of."""
        return self.healthcheck_url


class BundleDeployer(BaseModelDeployer):
    """Puts bundles up, and keeps ZenML's records of them."""

    SERVICE: ClassVar[type[BundleService]]

    def _services(self, kind: type[ServiceOfBundle], model_name: str) -> list[ServiceOfBundle]:
        """Return the services of a model, the newest first.

        Not by ``find_model_server``, which stops at a page of all models' services.
        """
        service_type = _type_of(kind)
        found = depaginate(
            Client().list_services,
            sort_by="desc:created",
            service_name=f"startswith:{ZENM_ENDPOINT_PREFIX}{model_name}-",
            type=service_type.type,
            flavor=service_type.flavor,
            hydrate=True,
        )
        loaded = [kind.from_model(record) for record in found if record.service_source]
        services = [service for service in loaded if isinstance(service, kind)]
        return [service for service in services if service.config.model_name == model_name]

    def put_up_service(self, config: BundleServiceConfig, bundle: Bundle) -> BundleService:
        """Start and prove a service of a bundle; it is given no requests yet.

        A service of the same version and predictor is started again if need be, and returned.

        Args:
            config: Of the service, should it be new.
            bundle: What to serve.

        Raises:
            CVFactoryError: It did not start or answers wrongly; nothing of it is left.
        """
        known = self._services(self.SERVICE, bundle.model_name)
        for service in known:
            if _identity(service.config) == _identity(config):
                self._start_again(service, bundle, known)
                return self._record(service, ServiceState.ACTIVE)
        version = get_model_version_id_if_exists(bundle.model_name, bundle.version)
        record = Client().create_service(config, _type_of(self.SERVICE), version)
        service = self.SERVICE(uuid=record.id, config=config, status=ServiceStatus())
        with ExitStack() as undo:
            undo.callback(Client().delete_service, record.id)
            # At once: ZenML's listings delete records that do not say their class.
            self._record(service, ServiceState.PENDING_STARTUP)
            self._start_new(service, bundle, known)
            undo.pop_all()
            undo.callback(self._forget, service)
            self._record(service, ServiceState.ACTIVE)
            undo.pop_all()
        return service

    @abstractmethod
    def _start_new(
        self, service: BundleService, bundle: Bundle, known: Sequence[BundleService]
    ) -> None:
        """Start a service that was never there, and prove it.

        Args:
            service: Which one.
            bundle: What it serves.
            known: The services of the model that have been there before.

        Raises:
            CVFactoryError: It did not start or answers wrongly; nothing of it is left.
        """

    @abstractmethod
    def _start_again(
        self, service: BundleService, bundle: Bundle, known: Sequence[BundleService]
    ) -> None:
        """Start a service that was there before, unless it runs, and prove it; see above.

        Raises:
            CVFactoryError: It did not start or answers wrongly.
        """

    def deploy_model(
        self,
        config: ServiceConfig,
        service_type: ServiceType | None = None,
        replace: bool = False,
        continuous_deployment_mode: bool = False,
        timeout: int = 0,
    ) -> BaseService:
        """Put up the bundle that a configuration names and give it all requests of its model.

        What served the model before serves until then, and is deleted afterwards, whether or not
        ``replace`` is asked for: a model has one endpoint. The start's time-out is the component's.

        Raises:
            CVFactoryError: It did not start or answers wrongly; what served before still serves.
        """
        given = cast(BundleServiceConfig, config)
        bundle = Bundle.load(Path(given.bundle))
        service = self.put_up(bundle, given.port or None)
        self.route(bundle.model_name, {service.uuid: 1.0})
        for other in self._services(self.SERVICE, bundle.model_name):
            if other.uuid != service.uuid:
                self.delete_model_server(other.uuid)
        return service

    @abstractmethod
    def put_up(self, bundle: Bundle, port: int | None = None) -> BundleService:
        """Start and prove a service of a bundle; it is given no requests yet."""

    @abstractmethod
    def route(self, model_name: str, weights: Mapping[UUID, float]) -> None:
        """Give a model's requests to these services in these shares, and to no others."""

    def perform_deploy_model(
        self, id: UUID, config: ServiceConfig, timeout: int = 300
    ) -> BaseService:
        """Refuse: ZenML's own ``deploy_model`` calls this, and ours does not."""
        raise NotImplementedError("deploy_model puts a bundle up")

    def _forget(self, service: BundleService) -> None:
        """Delete a service, and then its record: one that cannot be deleted stays listed."""
        self.perform_delete_model(service)
        Client().delete_service(service.uuid)

    def _record(self, service: BundleService, state: ServiceState) -> BundleService:
        """Store in ZenML what a service is and where it is reached."""
        service.admin_state = state
        service.update_status()
        Client().update_service(
            id=service.uuid,
            name=service.config.service_name,
            service_source=service.model_dump().get("type"),
            admin_state=service.admin_state,
            status=service.status.model_dump(),
            prediction_url=service.prediction_url,
            health_check_url=service.healthcheck_url,
        )
        return service


def described(bundle: Bundle) -> dict[str, str]:
    """Return what ZenML stores of every service of a bundle, whatever deploys it."""
    return {
        "name": f"{bundle.model_name}-{bundle.version}",
        "model_name": bundle.model_name,
        "model_version": bundle.version,
        "predictor": bundle.predictor.fingerprint,
        **_origin(),
    }


def _identity(config: BundleServiceConfig) -> tuple[str, str, int]:
    return config.model_version, config.predictor, config.port


def _type_of(kind: type[BundleService]) -> ServiceType:
    service_type: ServiceType = kind.SERVICE_TYPE
    return service_type


def _origin() -> dict[str, str]:
    """Return the pipeline and step that deploy, where one does."""
    try:
        context = get_step_context()
    except RuntimeError:
        return {}
    return {
        "pipeline_name": context.pipeline.name,
        "pipeline_step_name": context.step_run.name,
    }
