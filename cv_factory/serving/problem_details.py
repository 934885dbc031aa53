"""Error responses as problem details (RFC 9457) whose ``type`` names the cause."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from cv_factory.errors import CVFactoryError


class ProblemError(CVFactoryError):
    """A rejected request.

    Attributes:
        status: HTTP status code.
        kind: Short machine-readable cause, the end of the ``type`` URN, such as ``image``.
        headers: Additional response headers.
    """

    def __init__(
        self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the problem details."""
        return {
            "type": f"urn:cv-factory:problem:{self.kind}",
            "title": self.kind.replace("-", " "),
            "status": self.status,
            "detail": str(self),
        }

    def response(self) -> Response:
        """Return the ``application/problem+json`` response."""
        body = json.dumps(self.to_dict())
        return Response(body, self.status, self.headers, media_type="application/problem+json")


def status_error(
    status: int, detail: str, headers: Mapping[str, str] | None = None
) -> ProblemError:
    """Return the problem of an HTTP status alone, such as 404 or 405; its kind is the phrase."""
    kind = HTTPStatus(status).phrase.lower().replace(" ", "-")
    return ProblemError(status, kind, detail, headers)


def internal_error(request_id: str) -> ProblemError:
    """Return the 500 for a fault of the service; its log has the details."""
    detail = f"the service failed; give its operator the request id {request_id}"
    return status_error(HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def overloaded_error() -> ProblemError:
    """Return the 503 for a full queue."""
    return ProblemError(
        503, "overloaded", "too many images are waiting; retry later", {"Retry-After": "1"}
    )
