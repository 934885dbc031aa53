"""Logs of an endpoint's containers in CloudWatch, where SageMaker keeps a stream per instance."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cv_factory.deployment.sagemaker.aws_calls import AwsClients, translate_aws_errors

_GROUP = "/aws/sagemaker/Endpoints/{endpoint}"
_POLL_INTERVAL_S = 2.0


@dataclass(frozen=True)
class EndpointLogs:
    """The logs of an endpoint.

    Attributes:
        aws: The clients.
        endpoint: Name of the endpoint.
    """

    aws: AwsClients
    endpoint: str

    def lines(self, variant: str, tail: int | None = None) -> list[str]:
        """Return what the instances of a variant printed, in order of time.

        Args:
            variant: Its name.
            tail: No more than so many of the last lines.
        """
        events = self._events(variant) if tail is None else self._last_events(variant, tail)
        return [event["message"].rstrip("\n") for event in events]

    def follow(self, variant: str, tail: int | None = None) -> Iterator[str]:
        """Yield what ``lines`` returns, and then what is printed from now on, without end."""
        since = int(time.time() * 1000)
        yield from self.lines(variant, tail)
        seen: set[str] = set()
        while True:
            time.sleep(_POLL_INTERVAL_S)
            for event in self._events(variant, startTime=since):
                if event["eventId"] not in seen:
                    seen.add(event["eventId"])
                    yield event["message"].rstrip("\n")

    def _events(self, variant: str, **limits: Any) -> list[dict[str, Any]]:
        logs = self.aws.client("logs")
        with translate_aws_errors(f"The logs of variant {variant} cannot be read"):
            pages = logs.get_paginator("filter_log_events").paginate(
                logGroupName=self._group, logStreamNamePrefix=f"{variant}/", **limits
            )
            try:
                events = [event for page in pages for event in page["events"]]
            except logs.exceptions.ResourceNotFoundException:
                return []
        return sorted(events, key=_timestamp)

    def _last_events(self, variant: str, n: int) -> list[dict[str, Any]]:
        logs = self.aws.client("logs")
        events: list[dict[str, Any]] = []
        with translate_aws_errors(f"The logs of variant {variant} cannot be read"):
            pages = logs.get_paginator("describe_log_streams").paginate(
                logGroupName=self._group, logStreamNamePrefix=f"{variant}/"
            )
            try:
                streams = [
                    stream["logStreamName"] for page in pages for stream in page["logStreams"]
                ]
            except logs.exceptions.ResourceNotFoundException:
                return []
            for stream in streams:
                events += logs.get_log_events(
                    logGroupName=self._group, logStreamName=stream, limit=n
                )["events"]
        return sorted(events, key=_timestamp)[-n:] if n else []

    @property
    def _group(self) -> str:
        return _GROUP.format(endpoint=self.endpoint)


def _timestamp(event: dict[str, Any]) -> int:
    return int(event["timestamp"])
