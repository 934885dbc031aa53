"""Rejected requests: problem details (RFC 9457) of a service or its proxy, and ``Retry-After``."""

import email.utils
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cv_factory_client.errors import ServiceError

_TYPE_PREFIX = "urn:cv-factory:problem:"
#: A proxy gives these answers, too, when the connection to the service breaks.
_PROXY_STATUSES = (502, 503, 504)


def rejection_error(
    url: str,
    status: int,
    problem: Mapping[str, Any],
    headers: Mapping[str, str],
    *,
    is_idempotent: bool,
) -> ServiceError:
    """Return the error of a rejected request.

    Args:
        url: Address of the service, for the message.
        status: HTTP status code.
        problem: ``type`` and ``detail``, if there are any.
        headers: Headers of the response.
        is_idempotent: Whether the request changes nothing.
    """
    retry_after = parse_retry_after(headers.get("retry-after", ""))
    # A 503 without Retry-After may come from a proxy whose connection broke after the request.
    is_unprocessed = status in (429, 503) and retry_after is not None
    kind = str(problem.get("type", ""))
    return ServiceError(
        f"{url} rejected the request ({status}): {problem.get('detail', '')}",
        status,
        kind.removeprefix(_TYPE_PREFIX) if kind.startswith(_TYPE_PREFIX) else "",
        retry_after=retry_after,
        request_id=headers.get("x-request-id", ""),
        is_retryable=is_unprocessed or (is_idempotent and status in _PROXY_STATUSES),
    )


def parse_retry_after(value: str) -> float | None:
    """Return the seconds of ``Retry-After``, a number or a date; None if it is neither."""
    value = value.strip()
    if value.isdecimal():
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    # "-0000" is read as no time zone.
    at = at.replace(tzinfo=at.tzinfo or UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
