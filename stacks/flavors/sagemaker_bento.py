"""The model deployer flavor ``sagemaker_bento``: endpoints on SageMaker, a variant a version.

What happens to an endpoint is the business of ``stacks.endpoints``; this connects it to ZenML's
records and commands, and has the image built where there is none.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import ClassVar, cast
from uuid import UUID

from pydantic import ConfigDict
from zenml.client import Client
from zenml.enums import ServiceState
from zenml.image_builders import BuildContext
from zenml.model_deployers import BaseModelDeployerFlavor
from zenml.model_deployers.base_model_deployer import BaseModelDeployerConfig
from zenml.models.v2.misc.service import ServiceType
from zenml.services.service import BaseService

from cv_factory.deployment.sagemaker.aws_calls import Aws
from cv_factory.deployment.sagemaker.endpoint import SagemakerEndpoint, State, state_of
from cv_factory.deployment.sagemaker.image import ServiceImage
from cv_factory.deployment.sagemaker.logs import EndpointLogs
from cv_factory.deployment.sagemaker.names import variant_name
from cv_factory.deployment.sagemaker.settings import EndpointSettings
from cv_factory.deployment.sagemaker.transport import endpoint_url
from cv_factory.deployment.verify import Proof
from cv_factory.errors import ConfigError, StackError
from cv_factory.serving.bundle import Bundle
from stacks.flavors.bundle_deployer import (
    BundleDeployer,
    BundleService,
    BundleServiceConfig,
    described,
)

_FLAVOR = "sagemaker_bento"


class SagemakerBentoConfig(EndpointSettings, BaseModelDeployerConfig):
    """Configuration of the component."""

    # ZenML's own lets keys pass that nobody reads.
    model_config = ConfigDict(extra="forbid")


class SagemakerBentoFlavor(BaseModelDeployerFlavor):
    """Registers the flavor."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return _FLAVOR

    @property
    def config_class(self) -> type[SagemakerBentoConfig]:
        """Class of its configuration."""
        return SagemakerBentoConfig

    @property
    def implementation_class(self) -> "type[SagemakerBentoDeployer]":
        """Class that does the work."""
        return SagemakerBentoDeployer


class SagemakerServiceConfig(BundleServiceConfig):
    """What ZenML stores of a service.

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
    def variant(self) -> str:
        """Name of its variant."""
        return variant_name(self.config.model_version, str(self.uuid))

    @property
    def client_url(self) -> str:
        """The endpoint, as commands of this project name it."""
        return endpoint_url(self.config.endpoint)

    @property
    def prediction_url(self) -> str | None:
        """Where signed requests are sent, whatever version answers."""
        host = f"runtime.sagemaker.{self.config.region}.amazonaws.com"
        return f"https://{host}/endpoints/{self.config.endpoint}/invocations"

    def state(self) -> State | None:
        """Return what SageMaker says of the endpoint; None where there is none."""
        return state_of(Aws(self.config.region), self.config.endpoint)

    def check_status(self) -> tuple[ServiceState, str]:
        """Ask SageMaker."""
        state = self.state()
        if state is not None and self.variant in state.names:
            share = state.shares.get(self.variant, 0.0)
            return ServiceState.ACTIVE, f"is given {share:.0%} of the requests ({state.status})"
        if self.admin_state == ServiceState.ACTIVE:
            return ServiceState.ERROR, "the endpoint has no such variant; deploy it again"
        return ServiceState.INACTIVE, ""

    def get_logs(self, follow: bool = False, tail: int | None = None) -> Generator[str, bool, None]:
        """Yield the lines that the variant's instances printed.

        Args:
            follow: Go on with what they print from now on.
            tail: No more than so many of the last lines.
        """
        logs = EndpointLogs(Aws(self.config.region), self.config.endpoint)
        yield from logs.follow(self.variant, tail) if follow else logs.lines(self.variant, tail)


class SagemakerBentoDeployer(BundleDeployer):
    """Puts bundles up as variants of endpoints, and shares requests out among them."""

    SERVICE = SagemakerService
    NAME: ClassVar[str] = "Endpoints of CV Factory on SageMaker"
    FLAVOR: ClassVar[type[BaseModelDeployerFlavor]] = SagemakerBentoFlavor

    @property
    def config(self) -> SagemakerBentoConfig:
        """Configuration of the component."""
        return cast(SagemakerBentoConfig, self._config)

    def services(self, model_name: str) -> list[SagemakerService]:
        """Return the services of a model, the newest first."""
        return self._services(SagemakerService, model_name)

    def put_up(self, bundle: Bundle, port: int | None = None) -> SagemakerService:
        """Add and prove a variant that serves a bundle; it is given no requests yet.

        Raises:
            ConfigError: A port is asked for, which no endpoint on SageMaker has.
            CVFactoryError: It did not start or answers wrongly; nothing of it is left.
        """
        if port is not None:
            raise ConfigError(
                "endpoint.port: an endpoint on SageMaker has a name and no port. Leave it out for "
                "this stack."
            )
        config = SagemakerServiceConfig(
            **described(bundle),
            endpoint=self._endpoint(bundle.model_name).name,
            region=self.config.region,
        )
        return cast(SagemakerService, self.put_up_service(config, bundle))

    def _start_new(
        self, service: BundleService, bundle: Bundle, known: Sequence[BundleService]
    ) -> None:
        started = cast(SagemakerService, service)
        variants = {cast(SagemakerService, other).variant for other in known} - {started.variant}
        endpoint = self._endpoint(bundle.model_name)
        endpoint.put_up(started.variant, bundle, self._image(), variants)

    def _start_again(
        self, service: BundleService, bundle: Bundle, known: Sequence[BundleService]
    ) -> None:
        self._start_new(service, bundle, known)

    def shares(self, model_name: str) -> dict[UUID, float]:
        """Return the share of the requests that each service of a model is given."""
        shares = self._endpoint(model_name).shares()
        uuids = {service.variant: service.uuid for service in self.services(model_name)}
        return {uuids[name]: share for name, share in shares.items() if name in uuids}

    def route(self, model_name: str, weights: Mapping[UUID, float]) -> None:
        """Give a model's requests to these services in these shares, and to no others.

        Raises:
            CVFactoryError: One of them does not serve, or SageMaker does not change the weights.
        """
        variants = {service.uuid: service.variant for service in self.services(model_name)}
        self._endpoint(model_name).route({variants[uuid]: w for uuid, w in weights.items()})

    def prove(self, service: SagemakerService, bundle: Bundle) -> Proof:
        """Send the golden samples to a model's endpoint, as any client would.

        Raises:
            ProofError: An answer is missing, wrong, or of another version.
        """
        return self._endpoint(service.config.model_name).prove(bundle)

    def set_stage(self, service: SagemakerService, stage: str) -> None:
        """Let a service's model on SageMaker say which stage its version is in."""
        self._endpoint(service.config.model_name).set_stage(service.variant, stage)

    def bundle_of(self, service: SagemakerService) -> Bundle:
        """Return what a service was put up with.

        Raises:
            CVFactoryError: It is damaged, or cannot be read.
        """
        return self._endpoint(service.config.model_name).bundle_of(service.variant)

    def perform_start_model(self, service: BaseService, timeout: int = 300) -> BaseService:
        """Refuse: a variant that is gone is deployed anew."""
        raise StackError(
            "A variant of an endpoint on SageMaker is not started: deploy the version "
            "(python run.py --pipeline deployment)."
        )

    def perform_stop_model(
        self, service: BaseService, timeout: int = 300, force: bool = False
    ) -> BaseService:
        """Refuse: what is stopped would still be charged for."""
        raise StackError(
            "A variant of an endpoint on SageMaker is not stopped: delete it (zenml "
            f"model-deployer models delete {service.uuid})."
        )

    def perform_delete_model(
        self, service: BaseService, timeout: int = 300, force: bool = False
    ) -> None:
        """Take the variant away with all that belongs to it; the endpoint goes with the last."""
        removed = cast(SagemakerService, service)
        self._endpoint(removed.config.model_name).remove(removed.variant)

    @staticmethod
    def get_model_server_info(service: BaseService) -> dict[str, str | None]:
        """Return what ``zenml model-deployer models describe`` shows."""
        shown = cast(SagemakerService, service)
        state = shown.state()
        share = state.shares.get(shown.variant, 0.0) if state else 0.0
        return {
            "PREDICTION_URL": shown.prediction_url,
            "PREDICTION_HOSTNAME": f"runtime.sagemaker.{shown.config.region}.amazonaws.com",
            "ENDPOINT": shown.config.endpoint,
            "ENDPOINT_STATUS": state.status if state else "there is none",
            "VARIANT": shown.variant,
            "MODEL_NAME": shown.config.model_name,
            "MODEL_VERSION": shown.config.model_version,
            "PREDICTOR": shown.config.predictor,
            "SHARE_OF_REQUESTS": f"{share:.0%}",
        }

    def _endpoint(self, model_name: str) -> SagemakerEndpoint:
        return SagemakerEndpoint.of_model(model_name, self.config)

    def _image(self) -> str:
        """Return the image that services run in, built by the stack's image builder if need be.

        Raises:
            StackError: There is none, and nothing that could build it.
            ImageBuildError: The build failed.
        """
        if self.config.image is not None:
            return self.config.image
        image = ServiceImage(Aws(self.config.region), self.config.repository)
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
