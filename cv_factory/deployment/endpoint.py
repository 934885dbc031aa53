"""A model's endpoint: one address, and behind it services of one version each.

The interface that the local and the SageMaker endpoint implement. Knows no orchestrator: the
callers name the services.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cv_factory.deployment.traffic import Traffic
from cv_factory.deployment.verify import VerificationResult
from cv_factory.errors import StackError
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.service_counters import ServiceCounters


@dataclass(frozen=True)
class ServiceHealth:
    """Health of one service of an endpoint.

    Attributes:
        state: ``missing`` if it does not run, ``starting`` until it is ready, ``unreachable`` if no
            request gets to it.
        detail: For people; what to do where something is wrong.
    """

    state: Literal["missing", "starting", "unreachable", "serving"]
    detail: str


class EndpointView(ABC):
    """The read-only side of an endpoint, which needs no settings of the deployer."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Address of the model without a path, whatever version answers."""

    @property
    @abstractmethod
    def prediction_url(self) -> str:
        """URL that images are sent to, whatever version answers."""

    @abstractmethod
    def traffic(self) -> Traffic:
        """Return how the requests are distributed among the services, by their names."""

    def weights(self) -> dict[str, float]:
        """Return the fraction of the requests that each service is given, by name."""
        return self.traffic().weights

    @abstractmethod
    def health(self, name: str) -> ServiceHealth:
        """Return the health of a service."""

    @abstractmethod
    def log_lines(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[str]:
        """Yield the lines that a service printed.

        Args:
            name: Of the service.
            follow: Go on with the lines that it prints from now on.
            tail: Only so many of the last lines.
        """

    @abstractmethod
    def describe(self, name: str) -> dict[str, str | None]:
        """Return what people want to know of a service, by upper-case key."""

    def counters(self) -> dict[str, ServiceCounters]:
        """Return what each service that is given requests or copies has counted, by its name.

        Raises:
            StackError: Endpoints of this kind count nothing by service.
        """
        raise StackError(
            "The endpoints of this stack's model deployer do not count what a rollout compares: "
            "remove rollout. A canary is set with endpoint.canary_share, and its alarms are those "
            "of the platform, such as CloudWatch's."
        )

    def healthcheck_url(self, name: str) -> str | None:
        """Return the URL at which this very service says whether it is ready; None if none."""
        return None


class Endpoint(EndpointView):
    """An endpoint that can be changed."""

    def check_address(self) -> None:
        """Check that clients can reach the endpoint where it should be, before anything is done.

        Raises:
            CVFactoryError: They cannot.
        """

    @abstractmethod
    def deploy(
        self, name: str, bundle: Bundle, *, keep: Collection[str] = (), is_new: bool = True
    ) -> VerificationResult:
        """Start and verify a service; it is given no requests yet.

        Args:
            name: Of the service, unique in the endpoint.
            bundle: Served by it.
            keep: Names of the other services that stay; what else is left over is deleted.
            is_new: False for a service that was deployed and verified before: it is started again
                if need be, and verified.

        Raises:
            CVFactoryError: It did not start or answers wrongly. Nothing of a new service is left,
                and what was served before still is.
        """

    @abstractmethod
    def start(self, name: str, timeout_s: float | None = None) -> VerificationResult:
        """Start a stopped service again, unless it runs, and verify it.

        Raises:
            CVFactoryError: Its bundle is damaged, it did not start, or it answers wrongly.
        """

    @abstractmethod
    def stop(self, name: str) -> None:
        """Stop a service with all its processes; it can be started again.

        Raises:
            CVFactoryError: It cannot be stopped.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Stop a service and delete all of it; the endpoint goes with its last service.

        Raises:
            CVFactoryError: It cannot be stopped.
        """

    @abstractmethod
    def set_traffic(self, traffic: Traffic) -> None:
        """Distribute the requests in another way.

        Returns when the change is in force.

        Raises:
            CVFactoryError: One of the services does not run, or the traffic cannot be changed.
        """

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Distribute the requests among these services by weight; shadows keep their copies.

        Raises:
            CVFactoryError: As ``set_traffic``.
        """
        self.set_traffic(self.traffic().with_weights(weights))

    @abstractmethod
    def verify(self, name: str, bundle: Bundle) -> VerificationResult:
        """Send the golden samples to the endpoint, as any client would.

        Args:
            name: Of the service that has all the requests.
            bundle: Should be served by it.

        Raises:
            VerificationError: An answer is missing, wrong, or of another version.
        """

    @abstractmethod
    def load_bundle(self, name: str) -> Bundle:
        """Return the bundle that a service was deployed from.

        Raises:
            CVFactoryError: It is damaged, or cannot be read.
        """

    def set_rollout(self, name: str, text: str) -> None:
        """Attach what became of the last rollout to a service, where services can report it."""

    @abstractmethod
    def set_stage(self, name: str, stage: str) -> None:
        """Attach the stage of its version to a service."""
