"""The read-only side of an endpoint on SageMaker: its state, its weights, its logs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from cv_factory.deployment.endpoint import EndpointView, ServiceHealth
from cv_factory.deployment.sagemaker.aws_calls import AwsClients
from cv_factory.deployment.sagemaker.endpoint_state import EndpointState, load_state
from cv_factory.deployment.sagemaker.logs import EndpointLogs
from cv_factory.deployment.sagemaker.transport import endpoint_url
from cv_factory.deployment.traffic import Share, Traffic


@dataclass(frozen=True)
class SagemakerEndpointView(EndpointView):
    """An endpoint, whether or not it exists.

    Attributes:
        name: Its name.
        aws: The clients.
    """

    name: str
    aws: AwsClients

    @property
    def url(self) -> str:
        """The endpoint, as commands of this project name it."""
        return endpoint_url(self.name)

    @property
    def prediction_url(self) -> str:
        """URL that signed requests are sent to, whatever version answers."""
        return f"https://{self._host}/endpoints/{self.name}/invocations"

    def state(self) -> EndpointState | None:
        """Return the state that SageMaker reports; see ``load_state``."""
        return load_state(self.aws, self.name)

    def traffic(self) -> Traffic:
        """Return the fraction of the requests of each variant, without those of none.

        SageMaker knows no arms: all are ``stable``.
        """
        state = self.state()
        weights = state.weights if state is not None else {}
        return Traffic({name: Share(weight) for name, weight in weights.items()})

    def health(self, name: str) -> ServiceHealth:
        """Return the health of a variant."""
        state = self.state()
        if state is None or name not in state.names:
            return ServiceHealth("missing", "the endpoint has no such variant; deploy it again")
        weight = state.weights.get(name, 0.0)
        return ServiceHealth("serving", f"is given {weight:.0%} of the requests ({state.status})")

    def log_lines(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[str]:
        """Yield the lines that a variant's instances printed; following has no end."""
        yield from self.logs.follow(name, tail) if follow else self.logs.lines(name, tail)

    def describe(self, name: str) -> dict[str, str | None]:
        """Return what people want to know of a variant, by upper-case key."""
        state = self.state()
        return {
            "PREDICTION_HOSTNAME": self._host,
            "ENDPOINT": self.name,
            "ENDPOINT_STATUS": state.status if state else "there is none",
            "VARIANT": name,
        }

    @cached_property
    def logs(self) -> EndpointLogs:
        """The logs of its containers."""
        return EndpointLogs(self.aws, self.name)

    @property
    def _host(self) -> str:
        return f"runtime.sagemaker.{self.aws.region}.amazonaws.com"
