"""What a protocol offers to both clients: calls that can be sent, and sent again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from cv_factory_client.errors import ServiceError
from cv_factory_client.results import ImagePrediction, Label, ModelInfo

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call of a service.

    Attributes:
        send: Sends it once and returns the response, or an awaitable of it.
        parse: Returns the result of a response; raises ``ServiceError`` for a rejection.
    """

    send: Callable[[], Any]
    parse: Callable[[Any], T]


class Calls(Protocol):
    """The calls of one protocol."""

    #: What ``Call.send`` raises where there is no response.
    errors: tuple[type[Exception], ...]

    def predict(self, images: Sequence[bytes]) -> Call[list[ImagePrediction]]:
        """Return the call that predicts encoded images."""

    def feedback(self, labels: Sequence[Label]) -> Call[int]:
        """Return the call that stores labels, and tells how many were accepted.

        Raises:
            ClientConfigError: The protocol has no such call.
        """

    def model_info(self) -> Call[ModelInfo]:
        """Return the call that describes the model."""

    def is_ready(self) -> Call[bool]:
        """Return the call that tells whether the service is ready."""

    def translate(self, error: Exception, *, is_idempotent: bool) -> ServiceError:
        """Return one of ``errors`` as what the clients raise."""

    def close(self) -> Any:
        """Close the connections; of an asynchronous client, return an awaitable."""
