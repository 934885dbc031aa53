"""The model deployer flavor ``bento``: BentoML services on this machine behind a stable port.

ZenML's own flavor does not work with BentoML from 1.4.16 on, never replaces what serves, and leaves
workers behind. Starting, proving, routing and stopping are the library's business
(``cv_factory.deployment``); this connects them to ZenML's records and commands.
"""

import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, cast
from uuid import UUID

from pydantic import Field
from zenml.config.global_config import GlobalConfiguration
from zenml.enums import ServiceState
from zenml.model_deployers import BaseModelDeployerFlavor
from zenml.model_deployers.base_model_deployer import BaseModelDeployerConfig
from zenml.models.v2.misc.service import ServiceType
from zenml.services.service import BaseService
from zenml.utils.secret_utils import SecretField

from cv_factory.deployment.local.endpoint import Endpoint
from cv_factory.deployment.verify import Proof
from cv_factory.processes.log_tail import LogReader
from cv_factory.serving.bundle import Bundle
from stacks.flavors.bundle_deployer import (
    BundleDeployer,
    BundleService,
    BundleServiceConfig,
    described,
)

_FLAVOR = "bento"
_POLL_SECONDS = 0.2


class BentoDeployerConfig(BaseModelDeployerConfig):
    """Configuration of the component."""

    host: str = Field("127.0.0.1", description="Address that the fronts listen on.")
    port: int = Field(3000, ge=1, le=65_535, description="Of a model's front, unless it names one.")
    start_timeout: float = Field(90.0, gt=0.0, description="Seconds until a service is ready.")
    drain_seconds: float = Field(
        30.0, ge=0.0, description="Seconds in which a replaced service finishes what it was given."
    )
    api_keys: str | None = SecretField(
        default=None, description="JSON of hashed API keys; see docs/serving.md."
    )
    api_keys_file: str | None = Field(None, description="The same as a file, read when it changes.")

    @property
    def is_local(self) -> bool:
        """The services run on the client's machine."""
        return True


class BentoDeployerFlavor(BaseModelDeployerFlavor):
    """Registers the flavor."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return _FLAVOR

    @property
    def config_class(self) -> type[BentoDeployerConfig]:
        """Class of its configuration."""
        return BentoDeployerConfig

    @property
    def implementation_class(self) -> "type[BentoDeployer]":
        """Class that does the work."""
        return BentoDeployer


class BentoServiceConfig(BundleServiceConfig):
    """What ZenML stores of a service.

    Attributes:
        folder: Of the model's endpoint.
        host: Address of its front.
    """

    folder: str = ""
    host: str = "127.0.0.1"


class BentoService(BundleService):
    """One version of a model, served by BentoML, as ZenML sees it."""

    SERVICE_TYPE: ClassVar[ServiceType] = ServiceType(
        name="BentoML service",
        type="model-serving",
        flavor=_FLAVOR,
        description="A BentoML service behind the model's front.",
    )

    config: BentoServiceConfig

    @property
    def endpoint_of_model(self) -> Endpoint:
        """Where the model is served."""
        return Endpoint(Path(self.config.folder), self.config.host, self.config.port)

    @property
    def client_url(self) -> str:
        """The front's address."""
        return self.endpoint_of_model.url

    @property
    def prediction_url(self) -> str | None:
        """Where to send images: the front's address, whatever version answers."""
        return f"{self.client_url}/predict"

    @property
    def healthcheck_url(self) -> str | None:
        """Where this very service says whether it is ready."""
        running = self.endpoint_of_model.running(str(self.uuid))
        return f"http://127.0.0.1:{running.port}/readyz" if running else None

    def check_status(self) -> tuple[ServiceState, str]:
        """Look at the process and ask whether it is ready."""
        endpoint, name = self.endpoint_of_model, str(self.uuid)
        if endpoint.running(name) is None:
            if self.admin_state == ServiceState.ACTIVE:
                return ServiceState.ERROR, "the process is gone; start it again"
            return ServiceState.INACTIVE, ""
        if not endpoint.is_ready(name):
            return ServiceState.PENDING_STARTUP, "the process runs, but is not ready"
        share = endpoint.shares().get(name, 0.0)
        if share and not endpoint.is_open:
            return ServiceState.ERROR, "the front before it is gone; start it again"
        return ServiceState.ACTIVE, f"is given {share:.0%} of the requests"

    def get_logs(self, follow: bool = False, tail: int | None = None) -> Generator[str, bool, None]:
        """Yield the lines that the service printed.

        Args:
            follow: Go on with what it prints from now on, until it ends.
            tail: No more than so many of the last lines.
        """
        endpoint, name = self.endpoint_of_model, str(self.uuid)
        with LogReader(endpoint.log_file(name)) as log:
            lines = log.lines()
            yield from lines if tail is None else deque(lines, maxlen=tail)
            while follow and endpoint.running(name):
                time.sleep(_POLL_SECONDS)
                yield from log.lines()


class BentoDeployer(BundleDeployer):
    """Puts bundles up, shares requests out among them, and takes them down."""

    SERVICE = BentoService
    NAME: ClassVar[str] = "BentoML services of CV Factory"
    FLAVOR: ClassVar[type[BaseModelDeployerFlavor]] = BentoDeployerFlavor

    @property
    def config(self) -> BentoDeployerConfig:
        """Configuration of the component."""
        return cast(BentoDeployerConfig, self._config)

    @property
    def local_path(self) -> str:
        """Where endpoints are kept: a folder of the component in ZenML's local stores."""
        return str(Path(GlobalConfiguration().local_stores_path) / str(self.id))

    def services(self, model_name: str) -> list[BentoService]:
        """Return the services of a model, the newest first."""
        return self._services(BentoService, model_name)

    def put_up(self, bundle: Bundle, port: int | None = None) -> BentoService:
        """Start and prove a service of a bundle; it is given no requests yet.

        A service of the same version and predictor is started again if need be, and returned.

        Args:
            bundle: What to serve.
            port: Of the model's front; the component's own where not given.

        Raises:
            CVFactoryError: It did not start or answers wrongly; nothing of it is left.
        """
        endpoint = self._endpoint(bundle.model_name, port)
        endpoint.keep_only(str(service.uuid) for service in self.services(bundle.model_name))
        config = BentoServiceConfig(
            **described(bundle),
            folder=str(endpoint.folder),
            host=endpoint.host,
            port=endpoint.port,
        )
        return cast(BentoService, self.put_up_service(config, bundle))

    def _start_new(
        self, service: BundleService, bundle: Bundle, known: Sequence[BundleService]
    ) -> None:
        endpoint = self._endpoint_of(cast(BentoServiceConfig, service.config))
        endpoint.put_up(str(service.uuid), bundle, self.config.start_timeout)

    def _start_again(
        self, service: BundleService, bundle: Bundle, known: Sequence[BundleService]
    ) -> None:
        endpoint = self._endpoint_of(cast(BentoServiceConfig, service.config))
        if service.is_put_up:
            endpoint.bring_up(str(service.uuid), self.config.start_timeout)
        else:
            endpoint.remove(str(service.uuid))
            self._start_new(service, bundle, known)

    def shares(self, model_name: str) -> dict[UUID, float]:
        """Return the share of the requests that each service of a model is given."""
        shares = self._endpoint(model_name, None).shares()
        return {UUID(name): share for name, share in shares.items()}

    def route(self, model_name: str, weights: Mapping[UUID, float]) -> None:
        """Give a model's requests to these services in these shares, and to no others.

        Raises:
            CVFactoryError: One of them does not run, or the front's port is taken.
        """
        services = {service.uuid: service for service in self.services(model_name)}
        first = services[next(iter(weights))]
        self._endpoint_of(first.config).route(
            {str(uuid): weight for uuid, weight in weights.items()}
        )

    def retire(self, service: BentoService) -> None:
        """Stop a service wholly and forget it; the front goes with the last one."""
        endpoint = self._endpoint_of(service.config)
        shares = {n: share for n, share in endpoint.shares().items() if n != str(service.uuid)}
        running = {name: share for name, share in shares.items() if endpoint.running(name)}
        if running:
            endpoint.route(running)
        elif str(service.uuid) in endpoint.shares():
            endpoint.close()
        endpoint.remove(str(service.uuid))

    def perform_start_model(self, service: BaseService, timeout: int = 300) -> BaseService:
        """Start a stopped service again, prove it, and give it requests if nothing else has them.

        Raises:
            CVFactoryError: Its bundle is damaged, or it does not become ready.
        """
        started = cast(BentoService, service)
        endpoint, name = self._endpoint_of(started.config), str(started.uuid)
        endpoint.bring_up(name, float(timeout) or self.config.start_timeout)
        others = {n: s for n, s in endpoint.shares().items() if n != name and endpoint.running(n)}
        endpoint.route(others | {name: endpoint.shares().get(name) or float(not others)})
        started.admin_state = ServiceState.ACTIVE
        started.update_status()
        return started

    def perform_stop_model(
        self, service: BaseService, timeout: int = 300, force: bool = False
    ) -> BaseService:
        """Stop a service wholly; it can be started again."""
        stopped = cast(BentoService, service)
        self._endpoint_of(stopped.config).take_down(str(stopped.uuid))
        stopped.admin_state = ServiceState.INACTIVE
        stopped.update_status()
        return stopped

    def perform_delete_model(
        self, service: BaseService, timeout: int = 300, force: bool = False
    ) -> None:
        """Stop a service wholly and delete what it was put up with."""
        self.retire(cast(BentoService, service))

    @staticmethod
    def get_model_server_info(service: BaseService) -> dict[str, str | None]:
        """Return what ``zenml model-deployer models describe`` shows."""
        shown = cast(BentoService, service)
        endpoint, name = shown.endpoint_of_model, str(shown.uuid)
        running = endpoint.running(name)
        return {
            "PREDICTION_URL": shown.prediction_url,
            "PREDICTION_HOSTNAME": endpoint.host,
            "PREDICTION_APIS_URLS": f"{endpoint.url}/predict {endpoint.url}/predict/batch",
            "HEALTH_CHECK_URL": shown.healthcheck_url,
            "MODEL_NAME": shown.config.model_name,
            "MODEL_VERSION": shown.config.model_version,
            "PREDICTOR": shown.config.predictor,
            "SHARE_OF_REQUESTS": f"{endpoint.shares().get(name, 0.0):.0%}",
            "DAEMON_PID": str(running.pid) if running else None,
            "LOG_FILE": str(endpoint.log_file(name)),
        }

    def prove(self, service: BentoService, bundle: Bundle) -> Proof:
        """Send the golden samples to a model's front, as any client would.

        Raises:
            ProofError: An answer is missing, wrong, or of another version.
        """
        return self._endpoint_of(service.config).prove(str(service.uuid), bundle)

    def set_stage(self, service: BentoService, stage: str) -> None:
        """Let a service say which stage its version is in."""
        self._endpoint_of(service.config).set_stage(str(service.uuid), stage)

    def bundle_of(self, service: BentoService) -> Bundle:
        """Return what a service was put up with.

        Raises:
            ArtifactError: It is damaged.
        """
        return self._endpoint_of(service.config).bundle_of(str(service.uuid))

    def _endpoint(self, model_name: str, port: int | None) -> Endpoint:
        config = self.config
        keys = {
            "CV_FACTORY_API_KEYS": config.api_keys,
            "CV_FACTORY_API_KEYS_FILE": config.api_keys_file,
        }
        return Endpoint(
            Path(self.local_path) / model_name,
            config.host,
            port or config.port,
            {name: value for name, value in keys.items() if value},
            config.drain_seconds,
        )

    def _endpoint_of(self, config: BentoServiceConfig) -> Endpoint:
        return self._endpoint(config.model_name, config.port or None)
