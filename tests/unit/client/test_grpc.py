"""The clients over gRPC, against a server whose outcomes a test scripts."""

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from cv_factory_client import (
    AsyncPredictionClient,
    ClientConfigError,
    ImagePrediction,
    PredictionClient,
    ServiceError,
)
from cv_factory_client.open_inference_messages import SERVICE, message_class
from tests.support.certificates import CertificateAuthority

ROW = {"id": "1", "label": None, "probabilities": {"a:b": 0.75}, "unfamiliar": False, "later": 1}
PREDICTION = ImagePrediction("1", None, {"a:b": 0.75}, "m", "7", unfamiliar=False)


@dataclass
class ScriptedService:
    """The methods of the protocol.

    Attributes:
        port: Where a server listens.
        outcomes: Of the next requests: a response, or a status with its metadata.
        requests: What came.
        metadata: Of each request.
    """

    port: int = 0
    outcomes: list[Any] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)

    def handlers(self) -> grpc.GenericRpcHandler:
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                self._answer,
                request_deserializer=message_class(f"{name}Request").FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            for name in ("ModelInfer", "ModelMetadata", "ServerReady")
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, tuple):
            code, detail, metadata = outcome
            context.set_trailing_metadata(tuple(metadata.items()))
            context.abort(code, detail)
        return outcome


@pytest.fixture
def scripted() -> Iterator[ScriptedService]:
    service = ScriptedService()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[service.handlers()])
    service.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service
    server.stop(None).wait()


def answer(rows: list[Any], *, is_raw: bool = False) -> Any:
    texts = [json.dumps(row).encode() for row in rows]
    output: dict[str, Any] = {"name": "prediction", "datatype": "BYTES", "shape": [len(rows)]}
    if not is_raw:
        output["contents"] = {"bytes_contents": texts}
    raw = [b"".join(len(text).to_bytes(4, "little") + text for text in texts)] if is_raw else []
    return message_class("ModelInferResponse")(
        model_name="m", model_version="7", outputs=[output], raw_output_contents=raw
    )


def rejection(code: str, status: int, kind: str, **metadata: str) -> Any:
    pairs = {key.replace("_", "-"): value for key, value in metadata.items()}
    pairs |= {"problem-type": f"urn:cv-factory:problem:{kind}", "problem-status": str(status)}
    return getattr(grpc.StatusCode, code), "busy", pairs


def proxy_rejection(status: int) -> Any:
    """Return what Envoy makes of its own answers over HTTP."""
    problem = {"type": "about:blank", "title": "Bad", "status": status, "detail": "busy"}
    return grpc.StatusCode.UNAVAILABLE, json.dumps(problem), {"retry-after": "0"}


def predict(url: str, images: list[bytes], *, is_async: bool = False, **options: Any) -> Any:
    """Predict a batch with either client."""
    if not is_async:
        with PredictionClient(url, **options) as client:
            return client.predict_batch(images)

    async def predict() -> Any:
        async with AsyncPredictionClient(url, **options) as client:
            return await client.predict_batch(images)

    return asyncio.run(predict())


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("is_raw", [False, True])
def test_images_go_as_bytes_and_predictions_come_as_over_http(
    scripted: ScriptedService, is_raw: bool, is_async: bool
) -> None:
    scripted.outcomes = [answer([ROW, ROW], is_raw=is_raw)]
    url = f"grpc://127.0.0.1:{scripted.port}"
    predictions = predict(url, [b"one", b""], is_async=is_async, api_key="cvf_secret")
    assert predictions == [PREDICTION] * 2
    [request] = scripted.requests
    [tensor], [output] = request.inputs, request.outputs
    assert (tensor.name, tensor.datatype, tensor.shape) == ("image", "BYTES", [2])
    assert (tensor.contents.bytes_contents, output.name) == ([b"one", b""], "prediction")
    assert scripted.metadata[0]["authorization"] == "Bearer cvf_secret"


def test_a_model_is_described_by_its_metadata(scripted: ScriptedService) -> None:
    inputs = [{"name": "image", "shape": [-1]}, {"name": "pixels", "shape": [-1, 8, 9, 1]}]
    scripted.outcomes = [
        message_class("ServerReadyResponse")(ready=True),
        message_class("ServerReadyResponse")(ready=False),
        message_class("ModelMetadataResponse")(name="m", versions=["7"], inputs=inputs),
        message_class("ModelMetadataResponse")(name="of another server", inputs=inputs[:1]),
    ]
    with PredictionClient(f"grpc://localhost:{scripted.port}") as client:
        assert [client.is_ready(), client.is_ready()] == [True, False]
        info = client.model_info()
        with pytest.raises(ServiceError, match="is not a prediction service"):
            client.model_info()
    assert (info.model, info.version, info.input_shape) == ("m", "7", (8, 9, 1))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_rejection_is_retried_when_the_service_says(
    scripted: ScriptedService, is_async: bool
) -> None:
    scripted.outcomes = [
        rejection("UNAVAILABLE", 503, "overloaded", retry_after="0"),
        rejection("RESOURCE_EXHAUSTED", 429, "too-many-requests", retry_after="0"),
        proxy_rejection(503),
        answer([ROW]),
    ]
    url = f"grpc://127.0.0.1:{scripted.port}"
    assert predict(url, [b""], is_async=is_async) == [PREDICTION]


@pytest.mark.parametrize(
    ("outcome", "status", "kind"),
    [
        ((grpc.StatusCode.UNAVAILABLE, "busy", {}), None, ""),
        (proxy_rejection(502), 502, ""),
        ((grpc.StatusCode.UNIMPLEMENTED, "busy", {}), 501, ""),
        (rejection("INVALID_ARGUMENT", 422, "image", x_request_id="r1"), 422, "image"),
        (rejection("DEADLINE_EXCEEDED", 408, "too-slow"), 408, "too-slow"),
        (rejection("RESOURCE_EXHAUSTED", 413, "too-many-images"), 413, "too-many-images"),
        (rejection("INTERNAL", 500, "internal", retry_after="0"), 500, "internal"),
    ],
)
def test_images_that_may_have_been_predicted_are_not_sent_again(
    scripted: ScriptedService, outcome: Any, status: int | None, kind: str
) -> None:
    scripted.outcomes = [outcome, answer([ROW])]
    with pytest.raises(ServiceError, match=r"busy$") as caught:
        predict(f"grpc://127.0.0.1:{scripted.port}", [b""])
    assert (caught.value.status, caught.value.kind) == (status, kind)
    assert caught.value.request_id == outcome[2].get("x-request-id", "")
    assert len(scripted.requests) == 1


def test_a_connection_that_was_not_made_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("cv_factory_client.clients.time.sleep", waits.append)
    with pytest.raises(ServiceError, match=r"9 cannot be reached: failed to connect.*refused"):
        predict("grpc://127.0.0.1:9", [b""])
    assert len(waits) == 3


def test_a_late_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"grpc://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServiceError, match=r"no answer within 0\.05 s"):
            predict(url, [b""], timeout=0.05)


def test_tls_with_a_ca_of_ones_own(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    certificate, key = authority.issue()
    service = ScriptedService(outcomes=[answer([ROW])])
    server = grpc.server(ThreadPoolExecutor(1), handlers=[service.handlers()])
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    url = f"grpcs://127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        assert predict(url, [b""], ca=authority.file) == [PREDICTION]
        with pytest.raises(ServiceError, match="name the CA's file") as caught:
            predict(url, [b""])
        assert not caught.value.is_retryable
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    "url", ["grpc://", "grpc://a:b", "grpc://u:secret@a:1", "grpc://a:1/path", "grpc://[::1"]
)
def test_a_malformed_address_is_refused(url: str) -> None:
    with pytest.raises(ClientConfigError, match="is not a valid URL") as caught:
        PredictionClient(url)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "cv_factory_client.grpc_calls")
    with pytest.raises(ClientConfigError, match=r"grpc .*install .* cv-factory-client\[grpc\]"):
        PredictionClient("grpc://127.0.0.1:9")
