"""What a client is told when it gets no answer: problem details (RFC 9457) that name the cause."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from cv_factory.errors import CVFactoryError


class ProblemError(CVFactoryError):
    """A request that is not answered, and why.

    Attributes:
        status: Of the HTTP response.
        kind: A short name that programs can tell causes apart by, such as ``image-unreadable``.
        headers: Of the HTTP response.
    """

    def __init__(
        self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Remember what to answer."""
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the HTTP response."""
        body = {
            "type": f"urn:cv-factory:problem:{self.kind}",
            "title": self.kind.replace("-", " "),
            "status": self.status,
            "detail": str(self),
        }
        return Response(
            json.dumps(body), self.status, self.headers, media_type="application/problem+json"
        )


def bare_problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response for a status that the framework chose, such as 404 or 405."""
    kind = HTTPStatus(status).phrase.lower().replace(" ", "-")
    return ProblemError(status, kind, detail, headers).response()


def overloaded() -> ProblemError:
    """Too much waits; this one is not taken on."""
    return ProblemError(
        503, "overloaded", "too many images wait already; come back later", {"Retry-After": "1"}
    )
