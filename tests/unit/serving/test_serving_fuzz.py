"""Damaged requests are answered or rejected with a reason; none causes a server error."""

import asyncio
import warnings
from collections import Counter
from contextlib import suppress
from typing import Any, cast

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from cv_factory.serving.application import Application
from tests.support.digits_service import digits_bundle, problem_kind
from tests.support.request_fuzzing import fuzzed_requests

COUNT = 1500


async def send_all(app: Application, seed: int, n: int) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return [
            await client.post(r.path, content=r.body, headers={"Content-Type": r.content_type})
            for r in fuzzed_requests(seed, n)
        ]


def test_damaged_requests_are_answered_or_rejected_with_a_reason() -> None:
    limits = {"max_pixels": 1_000_000}
    app = Application(digits_bundle(limits=limits, log={"requests": False}))
    with warnings.catch_warnings():
        # Pillow warns of damaged metadata.
        warnings.simplefilter("ignore")
        responses = asyncio.run(send_all(app, 6, COUNT))
    app.close()
    statuses = Counter(response.status_code for response in responses)
    assert all(status == 200 or 400 <= status < 500 for status in statuses), statuses
    assert min(statuses[200], statuses[400], statuses[415], statuses[422]) > COUNT / 100, statuses
    for response in responses:
        if response.status_code != 200:
            assert problem_kind(response)


def test_requests_generated_from_the_description_cause_no_server_error() -> None:
    app = Application(digits_bundle(log={"requests": False}))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app).exclude(path="/readyz")
    schema = schema.exclude(path_regex="/v2.*(versions|health|ready)")
    calls: Counter[str] = Counter()

    def check(case: "schemathesis.Case[Any]") -> None:
        response = case.call()
        calls[case.path] += 1
        assert response.status_code < 500
        if response.status_code != 200:
            is_open_inference = case.path.startswith("/v2")
            content_type = "application/json" if is_open_inference else "application/problem+json"
            assert response.headers["content-type"] == [content_type]

    limits = settings(
        max_examples=12, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    for result in schema.get_all_operations():
        for mode in GenerationMode:
            operation = cast(Any, result).ok()
            strategy = operation.as_strategy(generation_mode=mode)
            with suppress(Unsatisfiable):
                limits(given(strategy)(check))()
    app.close()
    assert {
        "/predict",
        "/predict/batch",
        "/invocations",
        "/model-info",
        "/v2/models/{model}/infer",
    } <= set(calls)
