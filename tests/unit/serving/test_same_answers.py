"""The same bytes give the same answer on every route, alone or among others.

Each route is asked by the client that its users have; the answers are compared as text.
"""

import asyncio
import base64
import json
import queue
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from PIL import Image
from websockets.asyncio.client import connect

from cv_factory_client import PredictionClient
from tests.support.digits_service import DigitsService, digit_png
from tests.support.images import encode

pytestmark = pytest.mark.slow

_JPEG = encode(Image.linear_gradient("L").resize((40, 30)), "JPEG")
IMAGES = [digit_png(0), digit_png(3), _JPEG, digit_png(8), encode(Image.new("RGBA", (9, 9), "red"))]
#: Returns one prediction an image, as JSON without the id.
Route = Callable[[DigitsService, Sequence[bytes]], list[Any]]


def post(service: DigitsService, path: str, **request: Any) -> Any:
    """Return the content of an answer."""
    url, headers = f"{service.url}{path}", {"X-API-Key": service.key}
    return httpx.post(url, headers=headers, **request).raise_for_status().json()


def raw(path: str) -> Route:
    def predict(service: DigitsService, images: Sequence[bytes]) -> list[Any]:
        answers = [post(service, path, content=image) for image in images]
        return [prediction for answer in answers for prediction in answer["predictions"]]

    return predict


def form(path: str) -> Route:
    def predict(service: DigitsService, images: Sequence[bytes]) -> list[Any]:
        files = [("images", ("x", image)) for image in images]
        return list(post(service, path, files=files)["predictions"])

    return predict


def base64_json(path: str) -> Route:
    def predict(service: DigitsService, images: Sequence[bytes]) -> list[Any]:
        body = {"images": [base64.b64encode(image).decode() for image in images]}
        return list(post(service, path, json=body)["predictions"])

    return predict


def open_inference_json(service: DigitsService, images: Sequence[bytes]) -> list[Any]:
    data = [base64.b64encode(image).decode() for image in images]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}
    body = {"inputs": [tensor], "outputs": [{"name": "prediction"}]}
    [output] = post(service, "/v2/models/digits/versions/7/infer", json=body)["outputs"]
    return [json.loads(text) for text in output["data"]]


def triton_request(module: Any, images: Sequence[bytes]) -> dict[str, Any]:
    """Return the arguments of a call of Triton's HTTP or gRPC client."""
    tensor = module.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, object))
    outputs = [module.InferRequestedOutput("prediction")]
    return {"model_name": "digits", "inputs": [tensor], "outputs": outputs}


def triton_predictions(result: Any) -> list[Any]:
    return [json.loads(text) for text in result.as_numpy("prediction")]


def open_inference_binary(service: DigitsService, images: Sequence[bytes]) -> list[Any]:
    address, headers = service.url.removeprefix("http://"), {"X-API-Key": service.key}
    with triton_http.InferenceServerClient(address) as client:
        return triton_predictions(
            client.infer(**triton_request(triton_http, images), headers=headers)
        )


def grpc(service: DigitsService, images: Sequence[bytes]) -> list[Any]:
    headers = {"x-api-key": service.key}
    with triton_grpc.InferenceServerClient(service.grpc_address) as client:
        return triton_predictions(
            client.infer(**triton_request(triton_grpc, images), headers=headers)
        )


def grpc_stream(service: DigitsService, images: Sequence[bytes]) -> list[Any]:
    """Send each image as a request of one stream."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton_grpc.InferenceServerClient(service.grpc_address) as client:
        client.start_stream(
            lambda result, error: answers.put((result, error)), headers={"x-api-key": service.key}
        )
        for image in images:
            client.async_stream_infer(**triton_request(triton_grpc, [image]))
        received = [answers.get(timeout=60) for _ in images]
    assert [error for _, error in received if error is not None] == []
    return [p for result, _ in received for p in triton_predictions(result)]


def websocket(service: DigitsService, images: Sequence[bytes]) -> list[Any]:
    """Send all images before an answer is read."""

    async def predict() -> list[Any]:
        url = f"{service.url.replace('http', 'ws')}/ws"
        headers = {"X-API-Key": service.key}
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            await socket.recv()
            for image in images:
                await socket.send(image)
            answers = [json.loads(await socket.recv()) for _ in images]
        return [p for a in sorted(answers, key=lambda a: a["frame"]) for p in a["predictions"]]

    return asyncio.run(predict())


ROUTES: dict[str, Route] = {
    "/predict": raw("/predict"),
    "/predict, form": form("/predict"),
    "/predict/batch, form": form("/predict/batch"),
    "/predict/batch, base64": base64_json("/predict/batch"),
    "/invocations": raw("/invocations"),
    "/invocations, form": form("/invocations"),
    "/invocations, base64": base64_json("/invocations"),
    "v2, JSON": open_inference_json,
    "v2, binary": open_inference_binary,
    "gRPC": grpc,
    "gRPC, stream": grpc_stream,
    "WebSocket": websocket,
}


def as_text(predictions: Sequence[Any]) -> list[str]:
    """Return predictions as text, without their ids."""
    texts = [json.dumps({k: v for k, v in p.items() if k != "id"}) for p in predictions]
    assert len({p["id"] for p in predictions}) == len(predictions)
    return texts


@pytest.fixture(scope="module")
def expected(service: DigitsService) -> list[str]:
    """Answers to the images, each of which is sent alone to ``/predict``."""
    return as_text(ROUTES["/predict"](service, IMAGES))


@pytest.mark.parametrize("name", ROUTES)
def test_the_same_bytes_give_the_same_answer(
    name: str, service: DigitsService, expected: list[str]
) -> None:
    route = ROUTES[name]
    assert as_text(route(service, IMAGES)) == expected
    assert [as_text(route(service, [image])) for image in IMAGES] == [[text] for text in expected]
    assert len(set(expected)) == len(IMAGES)


def test_clients_return_the_same_predictions(service: DigitsService, expected: list[str]) -> None:
    for url in (service.url, f"grpc://{service.grpc_address}"):
        with PredictionClient(url, service.key) as client:
            batch = client.predict_batch(IMAGES)
        for prediction, text in zip(batch, expected, strict=True):
            answer = json.loads(text)
            assert prediction.label == answer["label"]
            assert json.dumps(prediction.probabilities) == json.dumps(answer["probabilities"])
