"""Open Inference Protocol v2 over REST: the answers of ``/predict``, to its clients as they are."""

import asyncio
import base64
import gzip
import json
import random
import re
import subprocess
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from starlette.testclient import TestClient
from tritonclient.utils import InferenceServerException

import cv_factory
from cv_factory.errors import ArtifactError
from cv_factory.serving.application import Application
from cv_factory.serving.auth.api_keys import ApiKeyStore, add_key
from cv_factory.serving.logging.prediction_log import read_predictions
from cv_factory.serving.protocols.open_inference import OutputTensor
from cv_factory.serving.protocols.open_inference_rest import LENGTH_HEADER
from tests.support.digits_service import (
    DigitsService,
    app_client,
    digit_png,
    digits_bundle,
    post_image,
)
from tests.support.fuzzing import mutated
from tests.support.paths import ROOT
from tests.support.predictors import digits_predictor
from tests.support.request_fuzzing import damage

INFER = "/v2/models/digits/infer"
CLASSES = [str(n) for n in range(10)]


def digit_pixels(n: int) -> npt.NDArray[np.uint8]:
    """Return the first digits, uint8 ``(n, 8, 8, 1)``."""
    return digits_predictor("logistic_regression")[1].images[:n]


def bytes_tensor(*elements: bytes) -> bytes:
    """Return elements as a binary tensor of BYTES."""
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def json_tensor(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    """Return a tensor whose data are in the JSON."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def binary_request(
    name: str, datatype: str, shape: list[int], data: bytes, **request: Any
) -> dict[str, Any]:
    """Return content and headers of a request whose only input is binary."""
    parameters = {"binary_data_size": len(data)}
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}
    head = json.dumps({"inputs": [tensor], **request}).encode()
    return {"content": head + data, "headers": {LENGTH_HEADER: str(len(head))}}


def outputs(response: httpx.Response) -> dict[str, npt.NDArray[Any]]:
    """Return the outputs of an answer, binary or not, by name."""
    assert response.status_code == 200, response.text
    length = response.headers.get(LENGTH_HEADER)
    result = triton.InferResult.from_response_body(
        response.content, header_length=length and int(length)
    )
    names = [output["name"] for output in result.get_response()["outputs"]]
    return {name: result.as_numpy(name) for name in names}


def test_every_form_of_a_request_is_answered_as_by_the_other_routes() -> None:
    images, pixels = [digit_png(n) for n in range(3)], digit_pixels(3)
    texts = [base64.b64encode(image).decode() for image in images]
    shape = [*pixels.shape]
    bodies: dict[str, dict[str, Any]] = {
        "base64": {"json": {"inputs": [json_tensor("image", "BYTES", [3], texts)]}},
        "base64 of a batch": {
            "json": {"inputs": [json_tensor("image", "BYTES", [3, 1], [[t] for t in texts])]}
        },
        "numbers": {"json": {"inputs": [json_tensor("pixels", "UINT8", shape, pixels.tolist())]}},
        "flat numbers": {
            "json": {"inputs": [json_tensor("pixels", "UINT8", shape, pixels.ravel().tolist())]}
        },
        "binary images": binary_request("image", "BYTES", [3], bytes_tensor(*images)),
        "binary pixels": binary_request("pixels", "UINT8", shape, pixels.tobytes()),
    }
    with app_client() as client:
        batch = client.post("/predict/batch", json={"images": texts}).json()["predictions"]
        for name, body in bodies.items():
            answer = client.post(INFER, **body).json()
            assert (answer["model_name"], answer["model_version"]) == ("digits", "7")
            probabilities, label = answer["outputs"]
            assert (probabilities["name"], probabilities["datatype"]) == ("probabilities", "FP32")
            assert probabilities["shape"] == [3, 10]
            # Equal, digit by digit.
            ranked = [p["probabilities"] for p in batch]
            assert probabilities["data"] == [row[c] for row in ranked for c in CLASSES], name
            assert label == json_tensor("label", "BYTES", [3], [p["label"] for p in batch]), name
        raw = client.post(INFER, content=images[1], headers={LENGTH_HEADER: "0"})
        assert outputs(raw)["label"].tolist() == [batch[1]["label"].encode()]
        for coding, compress in (("gzip", gzip.compress), ("deflate", zlib.compress)):
            request = binary_request("pixels", "UINT8", shape, pixels.tobytes())
            request["headers"]["content-encoding"] = coding
            request["content"] = compress(request["content"])
            assert client.post(INFER, **request).json()["outputs"][1] == label


def test_a_request_selects_outputs_their_form_and_classes() -> None:
    pixels = digit_pixels(2)
    predictor = digits_predictor("logistic_regression", has_familiarity=True)[0]
    expected = predictor.predict(pixels)

    def infer(**request: Any) -> httpx.Response:
        shape, data = [*pixels.shape], pixels.tobytes()
        return client.post(INFER, **binary_request("pixels", "UINT8", shape, data, **request))

    app = Application(digits_bundle(has_familiarity=True))
    client: httpx.Client = TestClient(app)
    default = outputs(infer())
    label_as_text = {"name": "label", "parameters": {"binary_data": False}}
    mixed = infer(
        parameters={"binary_data_output": True}, outputs=[label_as_text, {"name": "features"}]
    )
    classes = infer(outputs=[{"name": "probabilities", "parameters": {"classification": 2}}])
    app.close()
    assert list(default) == ["probabilities", "label", "unfamiliarity"]
    np.testing.assert_allclose(default["unfamiliarity"], expected.unfamiliarity, atol=1e-4)
    assert mixed.headers["content-type"] == "application/octet-stream"
    np.testing.assert_array_equal(outputs(mixed)["features"], expected.features)
    label, features = json.loads(mixed.content[: int(mixed.headers[LENGTH_HEADER])])["outputs"]
    assert label["data"] == default["label"].tolist()
    assert features["parameters"] == {"binary_data_size": expected.features.nbytes}
    best = expected.probabilities.argmax(1)
    values = default["probabilities"].max(1)
    [ranked] = classes.json()["outputs"]
    assert (ranked["datatype"], ranked["shape"]) == ("BYTES", [2, 2])
    assert ranked["data"][::2] == [f"{v:.6f}:{i}:{i}" for v, i in zip(values, best, strict=True)]


def test_a_label_that_is_no_utf8_is_returned_as_it_is() -> None:
    label = OutputTensor("label", np.array(["caf\udce9", ""], object))
    assert (label.datatype, label.shape) == ("BYTES", (2,))
    assert label.to_bytes() == bytes_tensor(b"caf\xe9", b"")


def test_an_answer_names_its_request_predictions_and_version(tmp_path: Path) -> None:
    body = {"id": "42", "inputs": [json_tensor("pixels", "UINT8", [2, 8, 8, 1], [0] * 128)]}
    log = {"predictions": str(tmp_path)}
    with app_client(log=log, cache={"max_entries": 10}) as client:
        first, second = client.post(INFER, json=body), client.post(INFER, json=body)
        metrics = client.get("/metrics").text
    assert (first.json()["id"], first.headers["x-cache"]) == ("42", "miss")
    assert (second.json()["parameters"]["cached"], second.headers["x-cache"]) == (True, "hit")
    ids = [i for r in (first, second) for i in r.json()["parameters"]["prediction_ids"].split(",")]
    assert [prediction["id"] for prediction in read_predictions(tmp_path)] == ids
    assert first.json()["parameters"]["version"] == "7"
    assert 'route="/v2/models/{model}/infer"' in metrics


def test_server_and_model_describe_themselves() -> None:
    with app_client() as client:
        server = {"name": "cv-factory", "version": cv_factory.__version__}
        extensions = ["binary_tensor_data", "classification"]
        assert client.get("/v2").json() == {**server, "extensions": extensions}
        assert client.get("/v2/").json() == client.get("/v2").json()
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}
        model = client.get("/v2/models/digits").json()
        for path in ("/v2/models/digits", "/v2/models/digits/versions/7"):
            assert client.get(path).json() == model
            assert client.get(f"{path}/ready").json() == {"name": "digits", "ready": True}
    assert model == {
        "name": "digits",
        "versions": ["7"],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, 8, 8, 1]},
        ],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "features", "datatype": "FP32", "shape": [-1, 16]},
            {"name": "prediction", "datatype": "BYTES", "shape": [-1]},
        ],
    }


PIXELS = json_tensor("pixels", "UINT8", [1, 8, 8, 1], [0] * 64)
PNG = base64.b64encode(digit_png()).decode()


def infer_request(tensor: dict[str, Any] = PIXELS, **request: Any) -> dict[str, Any]:
    """Return a request with an input, some of whose fields may be replaced."""
    return {"json": {"inputs": [tensor], **request}}


BAD_REQUESTS: dict[str, dict[str, Any]] = {
    "no JSON": {"content": b"{"},
    "no UTF-8": {"content": b"\xff\xfe{"},
    "deep JSON": {"content": b"[" * 100_000},
    "a list": {"json": []},
    "no inputs": {"json": {}},
    "empty inputs": {"json": {"inputs": []}},
    "two inputs": {"json": {"inputs": [PIXELS, PIXELS]}},
    "another input": infer_request(json_tensor("x", "UINT8", [1], [0])),
    "another type": infer_request({**PIXELS, "datatype": "FP32"}),
    "another size": infer_request({**PIXELS, "shape": [1, 28, 28, 1]}),
    "one image without a batch": infer_request({**PIXELS, "shape": [8, 8, 1]}),
    "no shape": infer_request({**PIXELS, "shape": []}),
    "no images": infer_request({**PIXELS, "shape": [0, 8, 8, 1], "data": []}),
    "a negative shape": infer_request({**PIXELS, "shape": [-1, 8, 8, 1]}),
    "a shape of text": infer_request({**PIXELS, "shape": ["1", 8, 8, 1]}),
    "too many images": infer_request({**PIXELS, "shape": [33, 8, 8, 1]}),
    "too few numbers": infer_request({**PIXELS, "data": [0] * 63}),
    "a number above 255": infer_request({**PIXELS, "data": [256] * 64}),
    "a fraction": infer_request({**PIXELS, "data": [0.5] * 64}),
    "text as numbers": infer_request({**PIXELS, "data": ["0"] * 64}),
    "lists and numbers": infer_request({**PIXELS, "data": [[0] * 63, 0]}),
    "no data": infer_request({**PIXELS, "data": None}),
    "no base64": infer_request(json_tensor("image", "BYTES", [1], ["http://x.example/a.png"])),
    "a number as image": infer_request(json_tensor("image", "BYTES", [1], [1])),
    "another number of images": infer_request(json_tensor("image", "BYTES", [2], [PNG])),
    "no image": infer_request(json_tensor("image", "BYTES", [2], [PNG, "aGVsbG8="])),
    "another output": infer_request(outputs=[{"name": "logits"}]),
    "classes of features": infer_request(
        outputs=[{"name": "features", "parameters": {"classification": 2}}]
    ),
    "an id that is no text": infer_request(id=42),
    "shared memory": infer_request({**PIXELS, "parameters": {"shared_memory_region": "a"}}),
    "no header": infer_request({**PIXELS, "parameters": {"binary_data_size": 64}}),
    "a header that is no number": {"content": b"{}", "headers": {LENGTH_HEADER: "-1"}},
    "a header of too many digits": {"content": b"{}", "headers": {LENGTH_HEADER: "9" * 5000}},
    "a header beyond the body": {"content": b"{}", "headers": {LENGTH_HEADER: "3"}},
    "binary data of no input": {
        "content": b'{"inputs": []}' + bytes(8), "headers": {LENGTH_HEADER: "14"}
    },
    "too few bytes": binary_request("pixels", "UINT8", [1, 8, 8, 1], bytes(63)),
    "too many bytes": binary_request("image", "BYTES", [1], bytes_tensor(b"a", b"b")),
    "a length beyond the bytes": binary_request("image", "BYTES", [1], b"\xff\xff\xff\xffa"),
    "a cut length": binary_request("image", "BYTES", [2], bytes_tensor(b"a") + b"\0"),
    "an empty image": binary_request("image", "BYTES", [1], bytes_tensor(b"")),
    "a lone image that is none": {"content": b"hello", "headers": {LENGTH_HEADER: "0"}},
}  # fmt: skip


def test_unusable_requests_are_rejected_with_their_reasons(
    golden: Callable[[str, str], None],
) -> None:
    lines = []
    with app_client() as client:
        for name, request in BAD_REQUESTS.items():
            response = client.post(INFER, **request)
            assert list(response.json()) == ["error"]
            # The parser's own text depends on its version.
            detail = re.sub(r"(?<=is not valid JSON: ).*", "…", response.json()["error"])
            lines.append(f"{name}: {response.status_code} {detail}\n")
    golden("open_inference_problems.txt", "".join(lines))


def test_damaged_binary_requests_cause_no_server_error() -> None:
    rng = random.Random(7)
    statuses: Counter[int] = Counter()
    with app_client(log={"requests": False}) as client, warnings.catch_warnings():
        # Pillow warns of damaged metadata.
        warnings.simplefilter("ignore")
        for image in mutated(7, 300):
            request = binary_request("image", "BYTES", [1], bytes_tensor(image))
            if rng.random() < 0.5:
                request["content"] = damage(request["content"], rng)
            statuses[client.post(INFER, **request).status_code] += 1
    assert min(statuses[200], statuses[400], statuses[422]) > 10, statuses
    assert set(statuses) <= {200, 400, 413, 422}


def test_every_error_has_the_form_of_the_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = add_key(tmp_path / "keys.json", "ann", ["predict"], None)
    keys = ApiKeyStore(tmp_path / "keys.json")
    headers = {"X-API-Key": key}
    limits = {"max_body_bytes": 1024}
    access = {"protect": ["model_info"]}
    with app_client(keys, limits=limits, access=access, rate={"per_key": 1}) as client:
        request: dict[str, Any] = {"json": {"inputs": [PIXELS]}, "headers": headers}
        responses = {
            200: client.post(INFER, **request),
            401: client.post(INFER, json={"inputs": [PIXELS]}),
            403: client.get("/v2/models/digits", headers=headers),
            404: client.post("/v2/models/cats/infer", **request),
            405: client.get(INFER),
            413: client.post(INFER, content=bytes(1025), headers=headers),
            415: client.post(INFER, headers={**headers, "content-encoding": "br"}),
            429: [client.post(INFER, **request) for _ in range(3)][-1],
        }
        unknown = [
            client.post("/v2/models/digits/versions/8/infer", **request),
            client.get("/v2/models/cats/ready"),
            client.get("/v2/repository/index"),
        ]
        monkeypatch.setattr(
            "cv_factory.serving.prediction_service.PredictionService.is_ready", None
        )
        responses[500] = client.get("/v2/health/ready")
    for status, response in responses.items():
        assert response.status_code == status, response.text
        assert list(response.json()) == ["error"] or status == 200
    assert responses[401].headers["www-authenticate"] == "Bearer"
    assert int(responses[429].headers["retry-after"]) > 0
    assert [response.status_code for response in unknown] == [404] * 3
    assert "this service has version '7'" in unknown[0].json()["error"]


def test_a_predictor_with_other_answers_than_at_export_is_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with app_client() as client:
        monkeypatch.setattr(
            "cv_factory.serving.inference_engine.InferenceEngine.verify_golden_samples",
            Mock(side_effect=ArtifactError("different")),
        )
        responses = client.get("/v2/health/ready"), client.get("/v2/models/digits/ready")
    for response in responses:
        assert response.status_code == 503
        assert "predicted differently than at export" in response.json()["error"]


def triton_inputs(module: Any) -> list[Any]:
    """Return the shared service's image as an input of Triton's clients."""
    image = module.InferInput("image", [1], "BYTES")
    return [image.set_data_from_numpy(np.array([digit_png(3)], object))]


def test_tritons_client_is_served_as_it_is(service: DigitsService) -> None:
    headers = {"X-API-Key": service.key}
    expected = post_image(httpx.Client(base_url=service.url, headers=headers), digit_png(3)).json()
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits", "7")
        assert not client.is_model_ready("digits", "8")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        assert client.get_model_metadata("digits")["versions"] == ["7"]
        with pytest.raises(InferenceServerException, match="send an API key"):
            client.infer("digits", triton_inputs(triton))
        requested = [
            triton.InferRequestedOutput("label", binary_data=False),
            triton.InferRequestedOutput("features"),
            triton.InferRequestedOutput("probabilities", class_count=1),
        ]
        for compression in (None, "gzip", "deflate"):
            result = client.infer(
                "digits", triton_inputs(triton), request_id="a", headers={**headers},
                outputs=requested, request_compression_algorithm=compression,
            )  # fmt: skip
            assert result.get_response()["id"] == "a"
            assert result.as_numpy("label").tolist() == [expected["predictions"][0]["label"]]
            assert result.as_numpy("features").shape == (1, 16)
            assert result.as_numpy("probabilities").shape == (1, 1)
        result = client.async_infer("digits", triton_inputs(triton), headers=headers).get_result()
    ranked = expected["predictions"][0]["probabilities"]
    values = np.array([[ranked[name] for name in CLASSES]], np.float32)
    np.testing.assert_array_equal(result.as_numpy("probabilities"), values)


def test_tritons_asyncio_client_is_served_as_it_is(service: DigitsService) -> None:
    async def infer() -> Any:
        address = service.url.removeprefix("http://")
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("digits")
            assert (await client.get_model_metadata("digits"))["platform"] == "onnx_onnxv1"
            pixels = triton.InferInput("pixels", [2, 8, 8, 1], "UINT8")
            pixels.set_data_from_numpy(digit_pixels(2))
            headers = {"X-API-Key": service.key}
            return await client.infer("digits", [pixels], model_version="7", headers=headers)

    assert asyncio.run(infer()).as_numpy("probabilities").shape == (2, 10)


@pytest.mark.engines
def test_kserves_client_is_served_as_it_is(
    service: DigitsService, engine: Callable[..., str]
) -> None:
    headers = {"X-API-Key": service.key}
    expected = post_image(httpx.Client(base_url=service.url, headers=headers), digit_png(3)).json()
    uv = engine(str(Path(sys.executable).with_name("uv")), "uv")
    # Its requirements contradict ours.
    environment = ["--no-project", "--python", sys.executable, "--with", "kserve==0.21.0"]
    script = [str(ROOT / "tests" / "support" / "kserve_client.py")]
    done = subprocess.run(
        [uv, "run", *environment, *script, service.url, service.key, str(service.image)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ranked = expected["predictions"][0]["probabilities"]
    for answer in json.loads(done.stdout):
        assert answer["label"] == [expected["predictions"][0]["label"]]
        values = [ranked[name] for name in CLASSES]
        np.testing.assert_allclose(answer["probabilities"], values, rtol=1e-6)
