"""Calls of AWS: the clients of one region, and every refusal turned into an error that says why."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cv_factory.deployment.sagemaker.aws_errors import aws_error

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_SECONDS_TO_CONNECT = 10
#: SageMaker gives a container 60 seconds for an answer.
_SECONDS_TO_ANSWER = 70


def quiet_aws_logs() -> None:
    """Keep AWS's libraries from telling of every place in which they look for settings."""
    for name in ("botocore", "sagemaker", "sagemaker.config"):
        logging.getLogger(name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class Aws:
    """The clients of a region, made when they are first used.

    Attributes:
        region: Of everything; None for that of the caller's AWS configuration.
    """

    region: str | None = None
    _made: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def _session(self) -> Any:
        import boto3

        quiet_aws_logs()
        return boto3.Session(region_name=self.region)

    def client(self, service: str) -> Any:
        """Return the client of a service, such as ``sagemaker``."""
        if service not in self._made:
            from botocore.config import Config

            patience = Config(
                connect_timeout=_SECONDS_TO_CONNECT,
                read_timeout=_SECONDS_TO_ANSWER,
                retries={"mode": "standard", "max_attempts": 5},
                max_pool_connections=32,
            )
            self._made[service] = self._session.client(service, config=patience)
        return self._made[service]


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what AWS answers to a call that it does not do into our error.

    Args:
        what: What does not work then, the beginning of a sentence.

    Raises:
        AccessError: Names action and resource where a permission is missing, or the quota.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise aws_error(error, what) from None


def is_missing(error: "ClientError") -> bool:
    """Whether SageMaker says that there is no such thing: it has no code for that alone."""
    detail = error.response["Error"]
    return detail.get("Code") in ("ValidationException", "ValidationError") and (
        "Could not find" in detail.get("Message", "")
    )
