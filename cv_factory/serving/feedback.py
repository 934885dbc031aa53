"""``POST /feedback``: labels of predictions that were made before, a batch a request."""

import asyncio
import logging
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cv_factory.config.problems import describe_error
from cv_factory.config.serving import LimitsConfig, ServingConfig
from cv_factory.serving.auth.access import AccessControl
from cv_factory.serving.label_record import Label, build_record
from cv_factory.serving.logging.feedback_log import FeedbackLog
from cv_factory.serving.logging.json_lines import log_event, timestamp
from cv_factory.serving.middleware import get_request_context
from cv_factory.serving.problem_details import ProblemError, overloaded_error
from cv_factory.serving.prometheus_metrics import ServiceMetrics
from cv_factory.serving.request_parsing import read_body, read_caller

FEEDBACK_PATH = "/feedback"
#: Requests at a time: labels are no reason to keep predictions waiting.
_MAX_ACTIVE = 16
_RETRY_AFTER_S = "5"


class FeedbackEndpoint:
    """Handler of requests with labels."""

    def __init__(
        self, model: str, serving: ServingConfig, access: AccessControl, metrics: ServiceMetrics
    ) -> None:
        """Write labels beside the prediction log, if there is one.

        Args:
            model: Name of the registered model.
            serving: Names the folder; its limits hold.
            access: Authenticates callers, and enforces the rate of labels.
            metrics: Counter of labels.
        """
        self._model = model
        self._limits = serving.limits
        self._access = access
        self._metrics = metrics
        self._n_active = 0
        folder, size = serving.log.predictions, serving.log.max_file_bytes
        self._log = FeedbackLog(Path(folder), size) if folder is not None else None

    async def handle(self, request: Request) -> Response:
        """Store the labels of a request, all or none; unknown predictions show at the join.

        Raises:
            ProblemError: The caller lacks the role ``feedback`` or exceeds a rate, the request is
                malformed, or the labels cannot be stored.
        """
        caller = read_caller(request)
        self._access.check_address_rate_limit(caller.address)
        principal = await self._access.identify(caller.credential, "feedback")
        context = get_request_context(request.scope)
        context.principal_name = principal.name
        if self._log is None:
            detail = "this service keeps no labels: its operator can set log.predictions"
            raise ProblemError(HTTPStatus.NOT_FOUND, "no-prediction-log", detail)
        if self._n_active >= _MAX_ACTIVE:
            raise overloaded_error()
        self._n_active += 1
        try:
            labels = parse_labels(await read_body(request, self._limits), self._limits)
            self._access.check_label_rate_limit(principal, len(labels))
            common = {"model": self._model, "key": principal.name, "time": timestamp()}
            records = [
                build_record(label, **common, origin=f"{context.request_id}/{position}")
                for position, label in enumerate(labels)
            ]
            await _store(self._log, records)
        finally:
            self._n_active -= 1
        self._metrics.count_labels(len(records))
        return JSONResponse({"accepted": len(records)})


async def _store(log: FeedbackLog, records: list[dict[str, Any]]) -> None:
    """Write records in a thread.

    Raises:
        ProblemError: 503: they cannot be written; none is.
    """
    try:
        await asyncio.to_thread(log.append, records)
    except OSError as error:
        log_event("feedback-unwritable", logging.ERROR, detail=str(error))
        raise ProblemError(
            503, "unwritable", "the labels cannot be stored now; send them again later",
            {"Retry-After": _RETRY_AFTER_S},
        ) from None  # fmt: skip


def parse_labels(body: bytes, limits: LimitsConfig) -> list[Label]:
    """Return the labels of a body ``{"labels": [...]}``, at least one.

    Raises:
        ProblemError: It is malformed; the detail names every label that cannot be used.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, "json", f"the body is not valid JSON: {error}") from None
    rows = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or content.keys() != {"labels"}:
        raise ProblemError(422, "json", 'the body must be an object {"labels": [{...}, ...]}')
    if len(rows) > limits.max_labels:
        detail = f"the request has {len(rows)} labels; at most {limits.max_labels} are allowed"
        raise ProblemError(413, "too-many-labels", detail)
    labels, problems = [], []
    for position, row in enumerate(rows):
        try:
            labels.append(Label.model_validate(row))
        except ValidationError as error:
            problems.append(f"label {position}: {describe_error(error)}")
    if problems:
        raise ProblemError(422, "label", "; ".join(problems))
    return labels
