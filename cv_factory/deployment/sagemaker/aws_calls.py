"""Clients of AWS for one region, and the translation of every error that they raise."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cv_factory.deployment.sagemaker.aws_errors import aws_error

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_CONNECT_TIMEOUT_S = 10
#: SageMaker gives a container 60 seconds to respond.
_READ_TIMEOUT_S = 70


def quiet_aws_logs() -> None:
    """Silence AWS's libraries, which log every place in which they look for settings."""
    for name in ("botocore", "sagemaker", "sagemaker.config"):
        logging.getLogger(name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class AwsClients:
    """The clients of a region, created when they are first used.

    Attributes:
        region: Of everything; None for that of the caller's AWS configuration.
    """

    region: str | None = None
    _clients: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def _session(self) -> Any:
        import boto3

        quiet_aws_logs()
        return boto3.Session(region_name=self.region)

    def client(self, service: str) -> Any:
        """Return the client of a service, such as ``sagemaker``."""
        if service not in self._clients:
            from botocore.config import Config

            config = Config(
                connect_timeout=_CONNECT_TIMEOUT_S,
                read_timeout=_READ_TIMEOUT_S,
                retries={"mode": "standard", "max_attempts": 5},
                max_pool_connections=32,
            )
            self._clients[service] = self._session.client(service, config=config)
        return self._clients[service]

    @cached_property
    def s3_filesystem(self) -> Any:
        """S3 as an ``fsspec.AbstractFileSystem``, for transfers of files."""
        import fsspec

        # Others write to the bucket as well, so no listing may be remembered.
        return fsspec.filesystem(
            "s3",
            client_kwargs={"region_name": self.region},
            use_listings_cache=False,
            skip_instance_cache=True,
        )


@contextmanager
def translate_aws_errors(what: str) -> Iterator[None]:
    """Translate what botocore or s3fs raises in the block into an error that names the cause.

    Args:
        what: What fails then, the beginning of the message.

    Raises:
        AwsError: Names action and resource where a permission is missing, or the quota.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise aws_error(error, what) from None
    except OSError as error:
        # s3fs translates botocore's errors into those of a file system.
        if isinstance(error.__cause__, ClientError | BotoCoreError):
            raise aws_error(error.__cause__, what) from None
        raise


def is_missing(error: "ClientError") -> bool:
    """Whether SageMaker reports a missing resource, for which it has no code of its own."""
    detail = error.response["Error"]
    return detail.get("Code") in ("ValidationException", "ValidationError") and (
        "Could not find" in detail.get("Message", "")
    )
