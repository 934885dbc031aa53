"""The model deployer flavor ``bento``: BentoML services on this machine behind a stable port.

ZenML's own flavor does not work with BentoML from 1.4.16 on, never replaces what serves, and leaves
workers behind. The work is done by ``LocalEndpoint``.
"""

from itertools import count
from pathlib import Path
from typing import ClassVar, cast

from pydantic import Field
from zenml.config.global_config import GlobalConfiguration
from zenml.model_deployers import BaseModelDeployerFlavor
from zenml.model_deployers.base_model_deployer import BaseModelDeployerConfig
from zenml.models.v2.misc.service import ServiceType
from zenml.utils.secret_utils import SecretField

from cv_factory.config.deployment import EndpointConfig
from cv_factory.deployment.local.endpoint import LocalEndpoint
from cv_factory.deployment.local.tls import check_tls_files
from cv_factory.deployment.traffic import Traffic
from cv_factory.processes.ports import is_port_taken
from stacks.flavors.bundle_deployer import BundleDeployer, BundleService, BundleServiceConfig

_FLAVOR = "bento"


class BentoDeployerConfig(BaseModelDeployerConfig):
    """Configuration of the component."""

    host: str = Field("127.0.0.1", description="Address that the proxies listen on.")
    port: int = Field(
        3000, ge=1, le=65_535, description="Of the first model's proxy; others have the next ones."
    )
    start_timeout: float = Field(90.0, gt=0.0, description="Seconds until a service is ready.")
    drain_seconds: float = Field(
        30.0, ge=0.0, description="Seconds in which what is replaced finishes its requests."
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
    """Flavor ``bento``."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return _FLAVOR

    @property
    def config_class(self) -> type[BentoDeployerConfig]:
        """Configuration class."""
        return BentoDeployerConfig

    @property
    def implementation_class(self) -> "type[BentoDeployer]":
        """Implementation class."""
        return BentoDeployer


class BentoServiceConfig(BundleServiceConfig):
    """Record of a service in ZenML.

    Attributes:
        folder: Of the model's endpoint.
        host: Address of its proxy.
    """

    folder: str = ""
    host: str = "127.0.0.1"


class BentoService(BundleService):
    """One version of a model, served by BentoML, as ZenML sees it."""

    SERVICE_TYPE: ClassVar[ServiceType] = ServiceType(
        name="BentoML service",
        type="model-serving",
        flavor=_FLAVOR,
        description="A BentoML service behind the model's proxy.",
    )

    config: BentoServiceConfig

    @property
    def endpoint_view(self) -> LocalEndpoint:
        """The model's endpoint, without the keys of its services."""
        return LocalEndpoint(Path(self.config.folder), self.config.host, self.config.port)


class BentoDeployer(BundleDeployer):
    """Deploys bundles on this machine."""

    SERVICE = BentoService
    NAME: ClassVar[str] = "BentoML services of CV Factory"
    FLAVOR: ClassVar[type[BaseModelDeployerFlavor]] = BentoDeployerFlavor

    @property
    def config(self) -> BentoDeployerConfig:
        """Configuration of the component."""
        return cast(BentoDeployerConfig, self._config)

    @property
    def local_path(self) -> str:
        """Folder of the endpoints: the component's own in ZenML's local stores."""
        return str(Path(GlobalConfiguration().local_stores_path) / str(self.id))

    def endpoint(self, model_name: str, port: int | None = None) -> LocalEndpoint:
        """Return the endpoint of a model; the port is the component's own where not given."""
        config = self.config
        keys = {
            "CV_FACTORY_API_KEYS": config.api_keys,
            "CV_FACTORY_API_KEYS_FILE": config.api_keys_file,
        }
        return LocalEndpoint(
            Path(self.local_path) / model_name,
            config.host,
            port or config.port,
            {name: value for name, value in keys.items() if value},
            config.start_timeout,
            config.drain_seconds,
        )

    def check_settings(self, model_name: str, settings: EndpointConfig) -> None:
        """Check the port and, where one is given, the certificate."""
        super().check_settings(model_name, settings)
        tls = Traffic().with_settings(settings).tls
        if tls is not None:
            check_tls_files(tls)

    def default_port(self, model_name: str) -> int | None:
        """Return the port that a model has, or the first from the component's own that is free.

        A port of another model is not, even while that is stopped.
        """
        ports = {s.config.model_name: s.config.port for s in reversed(self._list_services())}
        taken, host = set(ports.values()), self.config.host
        return ports.get(model_name) or next(
            port
            for port in count(self.config.port)
            if port not in taken and not is_port_taken(host, port)
        )

    def service_config(self, endpoint: LocalEndpoint, **fields: str) -> BentoServiceConfig:
        """Return what ZenML stores of a service: with folder, host and port."""
        return BentoServiceConfig(
            **fields, folder=str(endpoint.folder), host=endpoint.host, port=endpoint.port
        )
