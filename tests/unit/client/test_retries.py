"""What the client sends again, after which time, and what it never sends twice."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from cv_factory_client import (
    AsyncPredictionClient,
    ImagePrediction,
    PredictionClient,
    RetryPolicy,
    ServiceError,
)

ANSWER = {
    "predictions": [{"id": "1", "label": "3", "probabilities": {}}],
    "model": "m",
    "version": "1",
}
PREDICTION = ImagePrediction("1", "3", {}, "m", "1")
Outcome = httpx.Response | Exception


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the clients waited, without waiting."""
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("cv_factory_client.clients.time.sleep", waited.append)
    monkeypatch.setattr("cv_factory_client.clients.asyncio.sleep", wait)
    return waited


def scripted(*outcomes: Outcome) -> tuple[httpx.MockTransport, Callable[[], int]]:
    """Return a service that answers with these outcomes in turn, and its number of requests."""
    remaining = list(outcomes)

    def answer(_request: httpx.Request) -> httpx.Response:
        outcome = remaining.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        # The outcome itself may be of several tests.
        return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)

    return httpx.MockTransport(answer), lambda: len(outcomes) - len(remaining)


def ok(body: Any = ANSWER) -> httpx.Response:
    return httpx.Response(200, json=body)


def rejection(status: int, retry_after: str | None = None) -> httpx.Response:
    headers = {"Retry-After": retry_after} if retry_after is not None else {}
    body = {"type": "urn:cv-factory:problem:overloaded", "detail": "busy"}
    return httpx.Response(status, json=body, headers={**headers, "X-Request-ID": "r1"})


def predict(transport: httpx.MockTransport, *, is_async: bool, **options: Any) -> ImagePrediction:
    """Predict one image with either client."""
    if not is_async:
        with PredictionClient("http://service", transport=transport, **options) as client:
            return client.predict(b"")

    async def predict() -> ImagePrediction:
        async with AsyncPredictionClient("http://service", transport=transport, **options) as c:
            return await c.predict(b"")

    return asyncio.run(predict())


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize(
    "outcome", [rejection(429, "2"), rejection(503, "2")], ids=["429", "503 with Retry-After"]
)
def test_a_rejection_is_retried_when_the_service_says(
    outcome: httpx.Response, is_async: bool, waits: list[float]
) -> None:
    transport, n_requests = scripted(outcome, ok())
    assert predict(transport, is_async=is_async) == PREDICTION
    assert n_requests() == 2
    [wait] = waits
    assert 2 <= wait <= 2.5


def test_a_connection_that_was_not_made_is_retried_with_growing_waits(
    is_async: bool, waits: list[float]
) -> None:
    refused = httpx.ConnectError("[Errno 111] Connection refused")
    transport, _ = scripted(refused, refused, ok())
    assert predict(transport, is_async=is_async) == PREDICTION
    assert 0.1 <= waits[0] <= 0.125
    assert 0.2 <= waits[1] <= 0.25
    transport, n_requests = scripted(*[refused] * 4)
    with pytest.raises(ServiceError, match=r"service cannot be reached: Connection refused$"):
        predict(transport, is_async=is_async)
    assert n_requests() == 4


@pytest.mark.parametrize(
    "outcome",
    [
        httpx.ReadError("reset"),
        httpx.ReadTimeout("slow"),
        httpx.WriteError("reset"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        rejection(500),
        rejection(502, "1"),
        rejection(503),
        rejection(504, "1"),
        rejection(422),
    ],
    ids=lambda outcome: getattr(outcome, "status_code", None) or type(outcome).__name__,
)
def test_images_that_may_have_been_predicted_are_not_sent_again(
    outcome: Outcome, is_async: bool, waits: list[float]
) -> None:
    transport, n_requests = scripted(outcome, ok())
    with pytest.raises(ServiceError):
        predict(transport, is_async=is_async)
    assert (n_requests(), waits) == (1, [])


@pytest.mark.parametrize("outcome", [httpx.ReadError("reset"), rejection(502), rejection(503)])
def test_a_question_that_changes_nothing_is_retried(outcome: Outcome, waits: list[float]) -> None:
    body = {"model": "m", "version": "1", "classes": ["3"], "stage": None,
            "input": {"height": 8, "width": 9, "channels": 1}}  # fmt: skip
    transport, _ = scripted(outcome, ok(body))
    with PredictionClient("http://service", transport=transport) as client:
        info = client.model_info()
    assert (info.classes, info.input_shape, info.details["stage"]) == (("3",), (8, 9, 1), None)
    assert len(waits) == 1


def test_readiness_is_not_retried(is_async: bool, waits: list[float]) -> None:
    transport, n_requests = scripted(httpx.ConnectError("refused"), rejection(503, "1"))
    with PredictionClient("http://service", transport=transport) as client:
        assert [client.is_ready(), client.is_ready()] == [False, False]
    assert (n_requests(), waits) == (2, [])


@pytest.mark.parametrize(
    "options",
    [{"retries": RetryPolicy(attempts=1)}, {"retries": RetryPolicy(max_wait_s=9.9)}],
    ids=["one attempt", "waits too long"],
)
def test_the_policy_bounds_attempts_and_waits(options: Any, waits: list[float]) -> None:
    transport, n_requests = scripted(rejection(429, "10"), ok())
    with pytest.raises(ServiceError, match=r"rejected the request \(429\): busy") as caught:
        predict(transport, is_async=False, **options)
    assert (n_requests(), waits) == (1, [])
    error = caught.value
    assert (error.status, error.kind, error.request_id) == (429, "overloaded", "r1")
    assert error.retry_after == 10


def test_only_the_services_own_problems_have_a_kind(waits: list[float]) -> None:
    problem = {"type": "about:blank", "title": "Bad Gateway", "detail": "The service ended."}
    transport, _ = scripted(httpx.Response(502, json=problem), httpx.Response(404, text="<html>"))
    for message in (r"\(502\): The service ended\.", r"\(404\): Not Found"):
        with pytest.raises(ServiceError, match=message) as caught:
            predict(transport, is_async=False)
        assert caught.value.kind == ""


def test_retry_after_may_be_a_date(waits: list[float]) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    without_zone = past.replace("GMT", "-0000")
    outcomes = rejection(429, date), rejection(503, past), rejection(503, without_zone), ok()
    transport, _ = scripted(*outcomes)
    predict(transport, is_async=False)
    assert 17 <= waits[0] <= 25
    assert waits[1:] == [0, 0]
    transport, _ = scripted(rejection(503, "soon"))
    with pytest.raises(ServiceError) as caught:  # as one without the header
        predict(transport, is_async=False)
    assert caught.value.retry_after is None
