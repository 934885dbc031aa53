"""Damaged requests are answered or refused, each with a reason; none is the service's fault."""

import asyncio
import warnings
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import settings
from request_fuzzing import fuzzed_requests
from served import digits_bundle, kind

from cv_factory.serving.app import Application, create_app

COUNT = 1500


async def send_all(app: Application, seed: int, n: int) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return [
            await client.post(r.path, content=r.body, headers={"Content-Type": r.content_type})
            for r in fuzzed_requests(seed, n)
        ]


def test_damaged_requests_are_answered_or_refused_with_a_reason() -> None:
    limits = {"max_pixels": 1_000_000}
    app = create_app(digits_bundle(limits=limits, log={"requests": False}))
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
            assert kind(response)


@pytest.fixture(scope="module")
def description() -> Iterator[schemathesis.BaseSchema]:
    app = create_app(digits_bundle(log={"requests": False}))
    yield schemathesis.openapi.from_asgi("/openapi.json", app)
    app.close()


schema = schemathesis.pytest.from_fixture("description").exclude(path="/readyz")


@schema.parametrize()
@settings(max_examples=15, deadline=None, database=None, derandomize=True)
def test_requests_made_from_the_description_are_never_the_services_fault(
    case: schemathesis.Case,
) -> None:
    response = case.call()
    assert response.status_code < 500
    if response.status_code != 200:
        assert response.headers["content-type"] == ["application/problem+json"]
