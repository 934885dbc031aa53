"""Limits of bodies, images, queues and concurrent requests."""

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from PIL import Image

from cv_factory.inference.predictor import ImageScores
from cv_factory.serving.application import Application
from cv_factory.serving.inference_engine import Pixels
from tests.support.digits_service import (
    app_client,
    digit_png,
    digits_bundle,
    post_image,
    problem_kind,
)
from tests.support.images import encode

_FORM = {"Content-Type": "multipart/form-data; boundary=b"}
_PART = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'


async def chunks(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def never_ending() -> AsyncIterator[bytes]:
    yield b"\x89PNG"
    await asyncio.Event().wait()


async def send(app: Application, content: Any, **headers: str) -> httpx.Response:
    """Send one request to an application in this process, bodies chunk by chunk."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        headers = {"Content-Type": "image/png", **headers}
        return await client.post("/predict", content=content, headers=headers)


def test_large_bodies_are_rejected_with_and_without_a_declared_length() -> None:
    app = Application(digits_bundle(limits={"max_body_bytes": 2000}))
    declared = asyncio.run(send(app, b"x" * 2001))
    streamed = asyncio.run(send(app, chunks(b"x" * 5000)))
    accepted = asyncio.run(send(app, chunks(digit_png())))
    app.close()
    for response in (declared, streamed):
        assert (response.status_code, problem_kind(response)) == (413, "body-too-large")
        assert response.headers["connection"] == "close"
    assert accepted.status_code == 200


def test_a_body_that_does_not_arrive_times_out() -> None:
    app = Application(digits_bundle(limits={"body_seconds": 0.1}))
    response = asyncio.run(send(app, never_ending()))
    app.close()
    assert (response.status_code, problem_kind(response)) == (408, "too-slow")


def test_too_many_images_are_rejected() -> None:
    files = [("images", ("x.png", digit_png()))] * 3
    with app_client(limits={"max_images": 2}) as client:
        response = client.post("/predict", files=files)
    assert (response.status_code, problem_kind(response)) == (413, "too-many-images")


def test_requests_beyond_the_queue_are_rejected_and_the_others_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Application(
        digits_bundle(batching={"max_batch": 2, "queue_size": 4}, limits={"max_images": 4})
    )
    batcher, has_rejected = app._predictions._engine._batcher, threading.Event()
    run = batcher._run

    def run_later(images: Sequence[Pixels]) -> Sequence[ImageScores]:
        has_rejected.wait(60)
        return run(images)

    monkeypatch.setattr(batcher, "_run", run_later)

    async def release() -> None:
        while not app._predictions._n_delayed_rejections:
            await asyncio.sleep(0)
        has_rejected.set()

    async def flood() -> list[httpx.Response]:
        released = asyncio.create_task(release())
        responses = await asyncio.gather(*(send(app, digit_png(n % 10)) for n in range(60)))
        await released
        return responses

    responses = asyncio.run(flood())
    app.close()
    assert {response.status_code for response in responses} == {200, 503}
    for response in responses:
        if response.status_code == 503:
            assert problem_kind(response) == "overloaded"
            assert response.headers["retry-after"] == "1"


def test_concurrent_requests_are_limited() -> None:
    app = Application(digits_bundle(limits={"max_requests": 2, "body_seconds": 3600.0}))

    async def crowd() -> list[httpx.Response]:
        is_released = asyncio.Event()

        async def slow_body() -> AsyncIterator[bytes]:
            await is_released.wait()
            yield b"no image"

        slow = [asyncio.create_task(send(app, slow_body())) for _ in range(2)]
        while app._predictions._n_active < 2:
            await asyncio.sleep(0)
        rejected = await send(app, digit_png())
        is_released.set()
        return [rejected, *(await asyncio.gather(*slow)), await send(app, digit_png())]

    statuses = [response.status_code for response in asyncio.run(crowd())]
    app.close()
    assert statuses == [503, 422, 422, 200]


def test_many_small_images_leave_the_event_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv_factory.serving.prediction_service._MAX_BLOCK_S", 0.0)
    app = Application(digits_bundle())
    decode = app._predictions._engine.decode
    order: list[str] = []

    def decode_and_note(image: bytes) -> Pixels:
        order.append("decode")
        return decode(image)

    async def note() -> None:
        order.append("other")

    async def work() -> None:
        await asyncio.gather(app._predictions._decode([digit_png()] * 3), note())

    monkeypatch.setattr(app._predictions._engine, "decode", decode_and_note)
    asyncio.run(work())
    app.close()
    assert order.index("other") < 2


def test_questions_for_readiness_at_the_same_time_share_one_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Application(digits_bundle())
    verify = Mock()
    monkeypatch.setattr(app._predictions._engine, "verify_golden_samples", verify)

    async def ask() -> list[bool]:
        return await asyncio.gather(*(app.is_ready() for _ in range(8)))

    assert asyncio.run(ask()) == [True] * 8
    assert verify.call_count == 1
    asyncio.run(ask())
    assert verify.call_count == 2
    app.close()


def test_a_delayed_rejection_holds_no_place_and_few_are_delayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cv_factory.serving.prediction_service._REJECTION_DELAY_S", 3600.0)
    app = Application(digits_bundle(limits={"max_requests": 1}))
    # As if all but one place in the queue were taken.
    monkeypatch.setattr(app._predictions._engine._batcher, "_queue_size", 1)
    too_many = 2 * (_PART + digit_png() + b"\r\n") + b"--b--\r\n"

    async def overload() -> list[int]:
        delayed = asyncio.create_task(send(app, too_many, **_FORM))
        while not app._predictions._n_delayed_rejections:
            await asyncio.sleep(0)
        responses = [await send(app, digit_png()), await send(app, too_many, **_FORM)]
        assert delayed.cancel(), "it was rejected without delay"
        return [response.status_code for response in responses]

    assert asyncio.run(overload()) == [200, 503]
    app.close()


@pytest.mark.parametrize(
    "model", ["logistic_regression", pytest.param("small_cnn", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("batching", [{"runs": 1}, {"threads": 2, "runs": 2}, {"max_batch": 3}])
def test_a_prediction_does_not_depend_on_its_batch(batching: dict[str, int], model: str) -> None:
    app = Application(digits_bundle(model, batching=batching))
    rng = random.Random(0)

    async def together(numbers: list[int]) -> list[httpx.Response]:
        return await asyncio.gather(*(send(app, digit_png(n)) for n in numbers))

    def prediction(response: httpx.Response) -> list[Any]:
        [fields] = response.json()["predictions"]
        # As text: the order of the classes is part of the response.
        return [fields["label"], json.dumps(fields["probabilities"])]

    alone = [prediction(asyncio.run(send(app, digit_png(n)))) for n in range(12)]
    for _ in range(12):
        numbers = rng.sample(range(12), rng.randint(2, 12))
        responses = asyncio.run(together(numbers))
        assert [prediction(response) for response in responses] == [alone[n] for n in numbers]
    app.close()


def test_an_image_that_takes_too_long_is_rejected() -> None:
    slow = encode(Image.new("RGB", (4000, 4000)), "JPEG")
    with app_client(limits={"answer_seconds": 0.001}) as client:
        response = post_image(client, slow)
    assert (response.status_code, problem_kind(response)) == (503, "overloaded")
