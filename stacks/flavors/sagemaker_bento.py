"""The model deployer flavor ``sagemaker_bento``: endpoints on SageMaker, a variant a version.

The work is done by ``SagemakerEndpoint``; this has the image built where there is none.
"""

from typing import ClassVar, cast

from pydantic import ConfigDict
from zenml.client import Client
from zenml.image_builders import BuildContext
from zenml.model_deployers import BaseModelDeployerFlavor
from zenml.model_deployers.base_model_deployer import BaseModelDeployerConfig
from zenml.models.v2.misc.service import ServiceType

from cv_factory.config.deployment import EndpointConfig
from cv_factory.deployment.sagemaker.aws_calls import AwsClients
from cv_factory.deployment.sagemaker.endpoint import SagemakerEndpoint
from cv_factory.deployment.sagemaker.endpoint_view import SagemakerEndpointView
from cv_factory.deployment.sagemaker.image import ServiceImage
from cv_factory.deployment.sagemaker.names import variant_name
from cv_factory.deployment.sagemaker.settings import EndpointSettings
from cv_factory.deployment.traffic import Traffic
from cv_factory.errors import ConfigError, StackError
from stacks.flavors.bundle_deployer import BundleDeployer, BundleService, BundleServiceConfig

_FLAVOR = "sagemaker_bento"


class SagemakerBentoConfig(EndpointSettings, BaseModelDeployerConfig):
    """Configuration of the component."""

    # ZenML's own accepts unknown keys.
    model_config = ConfigDict(extra="forbid")


class SagemakerBentoFlavor(BaseModelDeployerFlavor):
    """Flavor ``sagemaker_bento``."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return _FLAVOR

    @property
    def config_class(self) -> type[SagemakerBentoConfig]:
        """Configuration class."""
        return SagemakerBentoConfig

    @property
    def implementation_class(self) -> "type[SagemakerBentoDeployer]":
        """Implementation class."""
        return SagemakerBentoDeployer


class SagemakerServiceConfig(BundleServiceConfig):
    """Record of a service in ZenML.

    Attributes:
        endpoint: Name of the model's endpoint.
        region: Where it is.
    """

    endpoint: str = ""
    region: str = ""


class SagemakerService(BundleService):
    """One version of a model, a variant of its endpoint, as ZenML sees it."""

    SERVICE_TYPE: ClassVar[ServiceType] = ServiceType(
        name="SageMaker variant",
        type="model-serving",
        flavor=_FLAVOR,
        description="A BentoML service behind a SageMaker endpoint.",
    )

    config: SagemakerServiceConfig

    @property
    def endpoint_view(self) -> SagemakerEndpointView:
        """The model's endpoint, as SageMaker reports it."""
        return SagemakerEndpointView(self.config.endpoint, AwsClients(self.config.region))

    @property
    def service_name(self) -> str:
        """Name of its variant."""
        return variant_name(self.config.model_version, str(self.uuid))


class SagemakerBentoDeployer(BundleDeployer):
    """Deploys bundles as variants of endpoints on SageMaker."""

    SERVICE = SagemakerService
    NAME: ClassVar[str] = "Endpoints of CV Factory on SageMaker"
    FLAVOR: ClassVar[type[BaseModelDeployerFlavor]] = SagemakerBentoFlavor

    @property
    def config(self) -> SagemakerBentoConfig:
        """Configuration of the component."""
        return cast(SagemakerBentoConfig, self._config)

    def endpoint(self, model_name: str, port: int | None = None) -> SagemakerEndpoint:
        """Return the endpoint of a model.

        Raises:
            ConfigError: A port is given.
        """
        if port is not None:
            raise ConfigError(
                "endpoint.port: an endpoint on SageMaker has a name and no port. Leave it out for "
                "this stack."
            )
        return SagemakerEndpoint.for_model(model_name, self.config, self._build_image)

    def check_settings(self, model_name: str, settings: EndpointConfig) -> None:
        """Refuse what endpoints on SageMaker lack.

        Raises:
            ConfigError: It is asked for.
        """
        super().check_settings(model_name, settings)
        traffic = Traffic().with_settings(settings)
        lacking = {
            "shadow_share: this model deployer sends no copies": settings.shadow_share,
            "sticky: SageMaker distributes each request on its own": traffic.sticky,
            "tls: SageMaker has certificates of its own": traffic.tls,
        }
        for reason, value in lacking.items():
            if value is not None:
                raise ConfigError(f"endpoint.{reason}. Leave it out for this stack.")

    def service_config(self, endpoint: SagemakerEndpoint, **fields: str) -> SagemakerServiceConfig:
        """Return what ZenML stores of a service: with the endpoint's name and region."""
        region = endpoint.settings.region
        return SagemakerServiceConfig(**fields, endpoint=endpoint.name, region=region)

    def _build_image(self) -> str:
        """Return the image of the services, built by the stack's image builder if need be.

        Raises:
            StackError: There is none, and nothing that could build it.
            ImageBuildError: The build failed.
        """
        image = ServiceImage(AwsClients(self.config.region), self.config.repository)
        if image.is_built():
            return image.name
        stack = Client().active_stack
        if stack.image_builder is None or stack.container_registry is None:
            raise StackError(
                f"The image {image.name} is not there, and the stack has no image builder that "
                "could build it. Name a built one: image, in the model deployer's configuration."
            )
        context = BuildContext()
        for name, text in image.files.items():
            context.add_file(text, name)
        stack.image_builder.build(image.name, context, container_registry=stack.container_registry)
        return image.name
