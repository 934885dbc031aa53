"""Record of every request, whatever its protocol: its facts, its log line, its metrics."""

import random
import re
from dataclasses import dataclass

from cv_factory.serving.logging.json_lines import AsyncLineWriter, timestamp
from cv_factory.serving.prometheus_metrics import ServiceMetrics

#: Request id of golden samples that verify a service; they are neither logged nor counted as
#: predictions.
VERIFICATION_REQUEST_ID = "golden-samples"
#: Ids of clients that are safe to log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_PATH = 200


def make_request_id(client_id: str | None, generator: random.Random) -> str:
    """Return the id that a client has sent if it is safe to log, else a new one."""
    if client_id is not None and REQUEST_ID.fullmatch(client_id):
        return client_id
    return f"{generator.getrandbits(128):032x}"


@dataclass
class RequestContext:
    """Facts about one request that are filled in for its log line; none of its content.

    Attributes:
        is_verification: Whether its images are golden samples that verify the service.
        seconds: Duration until the response was sent; None until then.
    """

    request_id: str
    principal_name: str | None = None
    n_images: int = 0
    problem: str | None = None
    status: int = 0
    is_verification: bool = False
    seconds: float | None = None


class RequestLog:
    """Writes a line for each request and counts it."""

    def __init__(self, metrics: ServiceMetrics, lines: AsyncLineWriter | None) -> None:
        """Write to these.

        Args:
            metrics: Counters of requests and problems.
            lines: Writer of the log; None to write none.
        """
        self._metrics = metrics
        self._lines = lines

    def record(
        self,
        context: RequestContext,
        *,
        method: str,
        path: str,
        route: str,
        address: str | None,
        seconds: float,
    ) -> None:
        """Record an answered request.

        Args:
            context: Its facts; ``status`` is an HTTP status code in every protocol.
            method: Of HTTP, or the name of the protocol.
            path: As the client sent it.
            route: Label of its metrics, one of few.
            address: Of the client.
            seconds: Until it was answered.
        """
        self._metrics.observe_request(route, context.status, seconds)
        if context.problem is not None:
            self._metrics.count_problem(context.problem)
        if self._lines is not None:
            self._lines.put(
                {
                    "time": timestamp(),
                    "event": "request",
                    "request_id": context.request_id,
                    "method": method,
                    "path": path[:_MAX_PATH],
                    "status": context.status,
                    "milliseconds": round(1000 * seconds, 3),
                    "key": context.principal_name,
                    "address": address,
                    "images": context.n_images,
                    "problem": context.problem,
                }
            )
