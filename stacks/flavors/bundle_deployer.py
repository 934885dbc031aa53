"""Model deployer over an ``Endpoint``: keeps ZenML's records of the services of bundles.

Where and how a service runs is the business of the endpoint; each flavor names one.
"""

import logging
import sys
from abc import abstractmethod
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, cast
from uuid import UUID

from zenml.client import Client
from zenml.enums import ServiceState
from zenml.model_deployers import BaseModelDeployer
from zenml.model_deployers.base_model_deployer import (
    DEFAULT_DEPLOYMENT_START_STOP_TIMEOUT,
    get_model_version_id_if_exists,
)
from zenml.models.v2.misc.service import ServiceType
from zenml.services import ServiceConfig, ServiceStatus
from zenml.services.service import ZENM_ENDPOINT_PREFIX, BaseDeploymentService, BaseService
from zenml.steps import get_step_context
from zenml.utils.pagination_utils import depaginate

from cv_factory.config.deployment import EndpointConfig
from cv_factory.deployment.endpoint import Endpoint, EndpointView
from cv_factory.deployment.traffic import Traffic
from cv_factory.serving.bundle import Bundle

_MISSING, _STARTING, _UNREACHABLE = "missing", "starting", "unreachable"


def _add_project_to_path() -> None:
    """Let ``registry`` be imported: ZenML adds the project only while it loads a flavor."""
    root = str(Path(__file__).resolve().parents[2])
    if root not in sys.path:
        sys.path.append(root)


def _quiet_requests() -> None:
    """Keep ZenML's commands from printing a line for each golden sample that is sent."""
    logging.getLogger("httpx").setLevel(logging.WARNING)


class BundleServiceConfig(ServiceConfig):
    """Record of a service of any deployer in ZenML.

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
    def endpoint_view(self) -> EndpointView:
        """The model's endpoint, as far as it is known without the deployer's settings."""

    @property
    def service_name(self) -> str:
        """Name of the service in its endpoint."""
        return str(self.uuid)

    @property
    def client_url(self) -> str:
        """Address of the model without a path, whatever version answers."""
        return self.endpoint_view.url

    @property
    def prediction_url(self) -> str | None:
        """URL that images are sent to, whatever version answers."""
        return self.endpoint_view.prediction_url

    @property
    def healthcheck_url(self) -> str | None:
        """URL at which this very service says whether it is ready, if there is one."""
        return self.endpoint_view.healthcheck_url(self.service_name)

    @property
    def is_deployed(self) -> bool:
        """Whether it was ever started and verified; else that is under way, or was killed."""
        return self.admin_state != ServiceState.PENDING_STARTUP

    def get_healthcheck_url(self) -> str | None:
        """Return ``healthcheck_url``; ZenML would ask a monitor, which there is none of."""
        return self.healthcheck_url

    def check_status(self) -> tuple[ServiceState, str]:
        """Return ZenML's state for the health of the service, and details for people."""
        health = self.endpoint_view.health(self.service_name)
        if health.state == _MISSING and self.admin_state != ServiceState.ACTIVE:
            return ServiceState.INACTIVE, ""
        if health.state in (_MISSING, _UNREACHABLE):
            return ServiceState.ERROR, health.detail
        if health.state == _STARTING:
            return ServiceState.PENDING_STARTUP, health.detail
        return ServiceState.ACTIVE, health.detail

    def get_logs(self, follow: bool = False, tail: int | None = None) -> Generator[str, bool, None]:
        """Yield the lines that the service printed.

        Args:
            follow: Go on with the lines that it prints from now on.
            tail: Only so many of the last lines.
        """
        yield from self.endpoint_view.log_lines(self.service_name, follow=follow, tail=tail)


class BundleDeployer(BaseModelDeployer):
    """Deploys bundles to endpoints, and keeps ZenML's records of them."""

    SERVICE: ClassVar[type[BundleService]]

    @abstractmethod
    def endpoint(self, model_name: str, port: int | None = None) -> Endpoint:
        """Return the endpoint of a model.

        Args:
            model_name: Name of the registered model.
            port: Where it is reached; the component's own where not given.

        Raises:
            ConfigError: A port is given, and endpoints of this flavor have none.
        """

    @abstractmethod
    def service_config(self, endpoint: Any, **fields: str) -> BundleServiceConfig:
        """Return what ZenML stores of a service of an endpoint, given what it serves."""

    def default_port(self, model_name: str) -> int | None:
        """Return the port of a model for which none is given; None where endpoints have none."""
        return None

    def check_settings(self, model_name: str, settings: EndpointConfig) -> None:
        """Check that a model can be reached as its settings say, before anything is done.

        Raises:
            ConfigError: Endpoints of this flavor lack what is asked for, or a certificate cannot
                be used.
            CVFactoryError: Another process has the port.
        """
        port = settings.port or self.default_port(model_name)
        self.endpoint(model_name, port).check_address()

    def service_endpoint(self, service: BundleService) -> Endpoint:
        """Return the endpoint of a service."""
        return self.endpoint(service.config.model_name, service.config.port or None)

    def services(self, model_name: str) -> list[BundleService]:
        """Return the services of a model, the newest first.

        Not by ``find_model_server``, which stops at a page of all models' services.
        """
        services = self._list_services(f"{model_name}-")
        return [service for service in services if service.config.model_name == model_name]

    def _list_services(self, prefix: str = "") -> list[BundleService]:
        """Return the services of this flavor whose names begin so, the newest first."""
        service_type = self._service_type
        records = depaginate(
            Client().list_services,
            sort_by="desc:created",
            service_name=f"startswith:{ZENM_ENDPOINT_PREFIX}{prefix}",
            type=service_type.type,
            flavor=service_type.flavor,
            hydrate=True,
        )
        loaded = [self.SERVICE.from_model(record) for record in records if record.service_source]
        return [service for service in loaded if isinstance(service, self.SERVICE)]

    def deploy(self, bundle: Bundle, port: int | None = None) -> BundleService:
        """Start and verify a service of a bundle; it is given no requests yet.

        A service of the same version and predictor is started again if need be, and returned.

        Args:
            bundle: What to serve.
            port: Of the model's endpoint; ``default_port`` where not given.

        Raises:
            ConfigError: A port is given, and endpoints of this flavor have none.
            CVFactoryError: It did not start or answers wrongly; nothing of a new one is left.
        """
        endpoint = self.endpoint(bundle.model_name, port or self.default_port(bundle.model_name))
        config = self.service_config(endpoint, **_bundle_fields(bundle))
        services = self.services(bundle.model_name)
        keep = {service.service_name for service in services}
        for service in services:
            if _identity(service.config) == _identity(config):
                is_new = not service.is_deployed
                endpoint.deploy(service.service_name, bundle, keep=keep, is_new=is_new)
                return self._record(service, ServiceState.ACTIVE)
        version = get_model_version_id_if_exists(bundle.model_name, bundle.version)
        record = Client().create_service(config, self._service_type, version)
        service = self.SERVICE(uuid=record.id, config=config, status=ServiceStatus())
        with ExitStack() as undo:
            undo.callback(Client().delete_service, record.id)
            # At once: ZenML's listings delete records without a service_source.
            self._record(service, ServiceState.PENDING_STARTUP)
            endpoint.deploy(service.service_name, bundle, keep=keep)
            undo.pop_all()
            undo.callback(self.remove, service)
            self._record(service, ServiceState.ACTIVE)
            undo.pop_all()
        return service

    def traffic(self, model_name: str) -> Traffic:
        """Return how a model's requests are distributed, by the ids of its services."""
        ids = {service.service_name: str(service.uuid) for service in self.services(model_name)}
        return self.endpoint(model_name).traffic().renamed(ids)

    def set_traffic(self, model_name: str, traffic: Traffic) -> None:
        """Distribute a model's requests among these services, by their ids.

        Raises:
            CVFactoryError: One of them does not run, or the traffic cannot be changed.
        """
        services = {str(service.uuid): service for service in self.services(model_name)}
        endpoint = self.service_endpoint(services[next(iter(traffic.shares))])
        url = endpoint.url
        endpoint.set_traffic(traffic.renamed({i: s.service_name for i, s in services.items()}))
        if endpoint.url != url:
            for service in services.values():
                self._record(service, service.admin_state)

    def remove(self, service: BundleService) -> None:
        """Delete a service, and then its record: one that cannot be deleted stays listed."""
        self.perform_delete_model(service)
        Client().delete_service(service.uuid)

    def deploy_model(
        self,
        config: ServiceConfig,
        service_type: ServiceType | None = None,
        replace: bool = False,
        continuous_deployment_mode: bool = False,
        timeout: int = 0,
    ) -> BaseService:
        """Deploy the bundle that a configuration names and give it all requests of its model.

        What served the model before serves until then, and is deleted afterwards, whether or not
        ``replace`` is given: a model has one endpoint. The start's time-out is the component's.

        Raises:
            CVFactoryError: A gate failed, it did not start or answers wrongly; what served before
                still serves.
        """
        _quiet_requests()
        request = cast(BundleServiceConfig, config)
        bundle = Bundle.load(Path(request.bundle))
        self._require_servable(bundle.model_name, bundle.version, bundle.predictor.fingerprint)
        service = self.deploy(bundle, request.port or None)
        traffic = self.traffic(bundle.model_name).all_to(str(service.uuid))
        self.set_traffic(bundle.model_name, traffic)
        self._audit("deployed", service)
        for other in self.services(bundle.model_name):
            if other.uuid != service.uuid:
                self.remove(other)
        return service

    def start_model_server(
        self, uuid: UUID, timeout: int = DEFAULT_DEPLOYMENT_START_STOP_TIMEOUT
    ) -> None:
        """Start a service as ``perform_start_model`` does, and record it in the audit log.

        Raises:
            CVFactoryError: A gate failed on its version, or as ``perform_start_model``.
        """
        _quiet_requests()
        service = self._find_service(uuid)
        served = service.config
        self._require_servable(served.model_name, served.model_version, served.predictor)
        super().start_model_server(uuid, timeout)
        self._audit("started", service)

    def stop_model_server(
        self,
        uuid: UUID,
        timeout: int = DEFAULT_DEPLOYMENT_START_STOP_TIMEOUT,
        force: bool = False,
    ) -> None:
        """Stop a service as ``perform_stop_model`` does, and record it in the audit log."""
        service = self._find_service(uuid)
        super().stop_model_server(uuid, timeout, force)
        self._audit("stopped", service)

    def delete_model_server(
        self,
        uuid: UUID,
        timeout: int = DEFAULT_DEPLOYMENT_START_STOP_TIMEOUT,
        force: bool = False,
    ) -> None:
        """Delete a service as ``remove`` does, and record it in the audit log."""
        service = self._find_service(uuid)
        super().delete_model_server(uuid, timeout, force)
        self._audit("deleted", service)

    def perform_deploy_model(
        self, id: UUID, config: ServiceConfig, timeout: int = 300
    ) -> BaseService:
        """Refuse: ZenML's own ``deploy_model`` calls this, and ours does not."""
        raise NotImplementedError("deploy_model deploys a bundle")

    def perform_start_model(self, service: BaseService, timeout: int = 300) -> BaseService:
        """Start a stopped service, verify it, and give it requests if nothing else has them.

        Raises:
            CVFactoryError: Its bundle is damaged, it does not become ready, or services of this
                flavor cannot be started again.
        """
        started = cast(BundleService, service)
        endpoint, name = self.service_endpoint(started), started.service_name
        endpoint.start(name, float(timeout) or None)
        traffic = endpoint.traffic()
        traffic = traffic.only([n for n in traffic.shares if endpoint.health(n).state != _MISSING])
        if not traffic.weights and name not in traffic.shadows:
            traffic = traffic.with_weights({name: 1.0})
        endpoint.set_traffic(traffic)
        started.admin_state = ServiceState.ACTIVE
        started.update_status()
        return started

    def perform_stop_model(
        self, service: BaseService, timeout: int = 300, force: bool = False
    ) -> BaseService:
        """Stop a service with all its processes; it can be started again.

        Raises:
            CVFactoryError: Services of this flavor cannot be stopped.
        """
        stopped = cast(BundleService, service)
        self.service_endpoint(stopped).stop(stopped.service_name)
        stopped.admin_state = ServiceState.INACTIVE
        stopped.update_status()
        return stopped

    def perform_delete_model(
        self, service: BaseService, timeout: int = 300, force: bool = False
    ) -> None:
        """Stop a service and delete all of it; the endpoint goes with its last service."""
        removed = cast(BundleService, service)
        self.service_endpoint(removed).remove(removed.service_name)

    @staticmethod
    def get_model_server_info(service: BaseService) -> dict[str, str | None]:
        """Return what ``zenml model-deployer models describe`` shows."""
        shown = cast(BundleService, service)
        view, name = shown.endpoint_view, shown.service_name
        return {
            "PREDICTION_URL": view.prediction_url,
            "MODEL_NAME": shown.config.model_name,
            "MODEL_VERSION": shown.config.model_version,
            "PREDICTOR": shown.config.predictor,
            "SHARE_OF_REQUESTS": view.traffic().describe(name),
            **view.describe(name),
        }

    @property
    def _service_type(self) -> ServiceType:
        service_type: ServiceType = self.SERVICE.SERVICE_TYPE
        return service_type

    def _find_service(self, uuid: UUID) -> BundleService:
        (service,) = self.find_model_server(service_uuid=uuid)
        return cast(BundleService, service)

    def _require_servable(self, model_name: str, version: str, predictor: str) -> None:
        """Refuse, through ZenML's own interface as well, what may not be served."""
        _add_project_to_path()
        from registry.service_events import require_servable

        require_servable(model_name, version, predictor)

    def _audit(self, kind: str, service: BundleService) -> None:
        """Record in the model's audit log what was done through ZenML's own interface."""
        _add_project_to_path()
        from registry.service_events import record_service_event

        record_service_event(kind, service)

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


def _bundle_fields(bundle: Bundle) -> dict[str, str]:
    """Return the fields of a service's configuration that say what it serves, and what made it."""
    return {
        "name": f"{bundle.model_name}-{bundle.version}",
        "model_name": bundle.model_name,
        "model_version": bundle.version,
        "predictor": bundle.predictor.fingerprint,
        **_step_fields(),
    }


def _identity(config: BundleServiceConfig) -> tuple[str, str, int]:
    return config.model_version, config.predictor, config.port


def _step_fields() -> dict[str, str]:
    """Return the pipeline and step that deploy, where one does."""
    try:
        context = get_step_context()
    except RuntimeError:
        return {}
    return {
        "pipeline_name": context.pipeline.name,
        "pipeline_step_name": context.step_run.name,
    }
