"""The Open Inference Protocol over gRPC, as Triton's client speaks it."""

import asyncio
import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from starlette.testclient import TestClient

from cv_factory.errors import ArtifactError, ConfigError
from cv_factory.processes.ports import LOOPBACK, find_free_port, listen
from cv_factory.serving.application import Application
from cv_factory.serving.auth.api_keys import ApiKeyStore, add_key
from cv_factory.serving.logging.json_lines import configure_event_logging
from cv_factory.serving.protocols.grpc_calls import _client_address
from cv_factory.serving.protocols.grpc_server import GrpcServer
from cv_factory.serving.protocols.open_inference_messages import SERVICE, message_class
from cv_factory.serving.service_environment import GRPC_PORT_VARIABLE, grpc_port
from tests.support.digits_service import digit_png, digits_bundle
from tests.support.grpc_service import served_over_grpc
from tests.support.predictors import digits_predictor
from tests.support.waiting import wait_until

STREAM = "ModelStreamInfer"
IMAGES = [digit_png(0), digit_png(1)]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served_over_grpc(Application(digits_bundle())) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


def encoded(*images: bytes) -> list[triton.InferInput]:
    tensor = triton.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, object))
    return [tensor]


def pixels(values: Any) -> list[triton.InferInput]:
    tensor = triton.InferInput("pixels", list(values.shape), "UINT8")
    tensor.set_data_from_numpy(values)
    return [tensor]


def test_it_describes_itself(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "7")
    assert client.get_server_metadata().name == "cv-factory"
    metadata = client.get_model_metadata("digits", as_json=True)
    assert metadata["versions"] == ["7"]
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["image", "pixels"]
    assert metadata["inputs"][1]["shape"] == ["-1", "8", "8", "1"]
    with pytest.raises(triton.InferenceServerException, match="no model 'other'") as error:
        client.get_model_metadata("other")
    assert error.value.status() == "StatusCode.NOT_FOUND"


def test_images_and_pixels_give_what_the_predictor_gives(
    client: triton.InferenceServerClient,
) -> None:
    images = digits_predictor("logistic_regression")[1].images[:2]
    expected = digits_predictor("logistic_regression")[0].predict(images)
    for inputs in (encoded(*IMAGES), pixels(images)):
        result = client.infer("digits", inputs, request_id="a")
        np.testing.assert_allclose(
            result.as_numpy("probabilities"), expected.probabilities, atol=1e-6
        )
        response = result.get_response()
        assert (response.id, response.model_version) == ("a", "7")
        ids = response.parameters["prediction_ids"].string_param.split(",")
        assert len(set(ids)) == 2
        labels = [label.decode() for label in result.as_numpy("label")]
        assert labels == [str(p.argmax()) for p in expected.probabilities]
        assert result.as_numpy("features") is None
    outputs = [
        triton.InferRequestedOutput("features"),
        triton.InferRequestedOutput("probabilities", class_count=2),
    ]
    result = client.infer("digits", encoded(*IMAGES), outputs=outputs)
    np.testing.assert_array_equal(result.as_numpy("features"), expected.features)
    assert result.as_numpy("label") is None
    assert result.as_numpy("probabilities")[0, 0].decode().endswith(f":{labels[0]}")


def test_typed_contents_are_answered_by_typed_contents(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        response = send(channel, "ModelInfer", infer_request(IMAGES[0]))
    outputs = {output.name: output.contents for output in response.outputs}
    assert not response.raw_output_contents
    assert outputs["label"].bytes_contents == [b"0"]
    assert sum(outputs["probabilities"].fp32_contents) == pytest.approx(1.0, abs=1e-4)


def infer_request(*images: bytes) -> Any:
    """Return a request with typed contents."""
    contents = {"bytes_contents": images}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images)], "contents": contents}
    return message_class("ModelInferRequest")(model_name="digits", id="b", inputs=[tensor])


def send(
    channel: grpc.Channel, method: str, request: Any, *metadata: tuple[str, str], **options: Any
) -> Any:
    """Call a unary method; its request is a message or bytes."""
    call = channel.unary_unary(
        f"/{SERVICE}/{method}",
        lambda r: r if isinstance(r, bytes) else r.SerializeToString(),
        message_class(f"{method}Response").FromString,
    )
    return call(request, metadata=metadata, **options)


def problem(error: grpc.RpcError) -> tuple[Any, str, str]:
    """Return code, kind and detail of an error."""
    metadata = dict(error.trailing_metadata())
    return error.code(), metadata["problem-type"].rpartition(":")[2], error.details()


def damaged_requests() -> dict[str, Any]:
    def request(**fields: Any) -> Any:
        return message_class("ModelInferRequest")(**{"model_name": "digits", **fields})

    def image(**fields: Any) -> dict[str, Any]:
        return {"name": "image", "datatype": "BYTES", "shape": [1], **fields}

    contents = {"bytes_contents": [IMAGES[0]]}
    region = {"shared_memory_region": {"string_param": "a"}}
    return {
        "no message": b"\xff",
        "model": request(model_name="other", inputs=[image(contents=contents)]),
        "version": request(model_version="8", inputs=[image(contents=contents)]),
        "no input": request(),
        "no data": request(inputs=[image()]),
        "datatype": request(inputs=[image(datatype="FP64", contents=contents)]),
        "no image": request(inputs=[image(contents={"bytes_contents": [b"x"]})]),
        "left over": request(inputs=[image()], raw_input_contents=[b"", b""]),
        "no length": request(inputs=[image()], raw_input_contents=[IMAGES[0]]),
        "shared memory": request(inputs=[image(parameters=region)]),
        "too many": request(inputs=[image(shape=[33])], raw_input_contents=[b""]),
        "too many outputs": request(outputs=[{}] * 17),
        "output": request(inputs=[image(contents=contents)], outputs=[{"name": "logits"}]),
    }


def test_damaged_requests_are_refused_as_over_http(
    address: str, golden: Callable[[str, str], None]
) -> None:
    with grpc.insecure_channel(address) as channel:
        lines = []
        for name, request in damaged_requests().items():
            with pytest.raises(grpc.RpcError) as error:
                send(channel, "ModelInfer", request)
            code, kind, detail = problem(error.value)
            lines.append(f"{name}: {code.name}, {kind}: {detail}")
    golden("grpc_problems.txt", "\n".join(lines) + "\n")


def test_access_rates_and_the_request_log_are_those_of_http(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = add_key(tmp_path / "keys.json", "ann", ["predict"], 0.01)
    app = Application(
        digits_bundle(access={"protect": ["model_info"]}),
        keys=ApiKeyStore(tmp_path / "keys.json"),
    )
    infer = "ModelInfer"
    request = infer_request(IMAGES[0])
    configure_event_logging()
    with (
        served_over_grpc(app) as address,
        grpc.insecure_channel(address) as channel,
    ):
        client = ("x-forwarded-for", "9.9.9.9, 10.0.0.1")
        header = ("authorization", f"Bearer {key}")
        send(channel, infer, request, header, client, ("x-request-id", "mine"))
        errors = []
        for method, message, *metadata in (
            (infer, request),
            (infer, request, ("x-api-key", "wrong")),
            (infer, request, header),
            ("ModelMetadata", b"", header),
        ):
            with pytest.raises(grpc.RpcError) as error:
                send(channel, method, message, *metadata)
            errors.append(error.value)
        with pytest.raises(grpc.RpcError) as error:
            next(channel.stream_stream(f"/{SERVICE}/{STREAM}")(iter([])))
        errors.append(error.value)
        metrics = TestClient(app).get("/metrics").text
    assert [problem(error)[:2] for error in errors] == [
        (grpc.StatusCode.UNAUTHENTICATED, "unauthorized"),
        (grpc.StatusCode.UNAUTHENTICATED, "unauthorized"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too-many-requests"),
        (grpc.StatusCode.PERMISSION_DENIED, "forbidden"),
        (grpc.StatusCode.UNAUTHENTICATED, "unauthorized"),
    ]
    limited = dict(errors[2].trailing_metadata())
    assert 0 < int(limited["retry-after"]) <= 100
    assert limited["grpc-retry-pushback-ms"] == limited["retry-after"] + "000"
    log = capsys.readouterr().err
    assert key not in log
    lines = [json.loads(line) for line in log.splitlines() if '"gRPC"' in line]
    # The service that other tests share writes its lines a moment later.
    [first, *others] = [line for line in lines if line["key"] != "anyone"]
    assert (first["request_id"], first["address"], first["key"]) == ("mine", "10.0.0.1", "ann")
    assert (first["method"], first["path"]) == ("gRPC", f"/{SERVICE}/ModelInfer")
    assert [line["status"] for line in (first, *others)] == [200, 401, 401, 429, 403, 401]
    assert others[0]["request_id"] == dict(errors[0].trailing_metadata())["x-request-id"]
    assert f'route="/{SERVICE}/ModelInfer",status="429"}} 1.0' in metrics


def test_a_stream_is_answered_in_order_and_goes_on_after_an_error(
    client: triton.InferenceServerClient,
) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    images = [IMAGES[n % 2] for n in range(40)]
    images[20] = b"no image"
    for number, image in enumerate(images):
        client.async_stream_infer("digits", encoded(image), request_id=str(number))
    results = [answers.get() for _ in images]
    client.stop_stream()
    assert "the image cannot be used" in results.pop(20).message()
    numbers = [number for number in range(40) if number != 20]
    assert [r.get_response().id for r in results] == [str(number) for number in numbers]
    alone = [client.infer("digits", encoded(image)).as_numpy("label") for image in IMAGES]
    assert [r.as_numpy("label") for r in results] == [alone[number % 2] for number in numbers]


@pytest.mark.parametrize(
    ("serving", "code", "kind"),
    [
        ({"limits": {"max_requests": 1}}, grpc.StatusCode.UNAVAILABLE, "overloaded"),
        (
            {"rate": {"per_address": 0.01}},
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "too-many-requests",
        ),
    ],
)
def test_a_stream_is_refused_beyond_the_limits(
    serving: dict[str, Any], code: grpc.StatusCode, kind: str
) -> None:
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    requests.put(infer_request(IMAGES[0]).SerializeToString())
    with (
        served_over_grpc(Application(digits_bundle(**serving))) as address,
        grpc.insecure_channel(address) as channel,
    ):
        open_stream = channel.stream_stream(f"/{SERVICE}/{STREAM}")
        first = open_stream(iter(requests.get, None))
        next(first)
        with pytest.raises(grpc.RpcError) as error:
            next(open_stream(iter(())))
        requests.put(None)
        assert list(first) == []
        assert problem(error.value)[:2] == (code, kind)


def test_tritons_asynchronous_client_predicts(address: str) -> None:
    async def infer() -> Any:
        async with triton_aio.InferenceServerClient(address) as client:
            return await client.infer("digits", encoded(IMAGES[0]))

    result = asyncio.run(infer())
    assert result.as_numpy("label").tolist() == [b"0"]


def test_health_and_reflection_answer(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
        methods = DescriptorPool(database).FindServiceByName(SERVICE).methods_by_name
    assert methods[STREAM].input_type.full_name == "inference.ModelInferRequest"


def test_a_service_that_answers_otherwise_than_at_export_is_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Application(digits_bundle())
    with served_over_grpc(app) as address, grpc.insecure_channel(address) as channel:
        verify = Mock(side_effect=ArtifactError("different"))
        monkeypatch.setattr(app._predictions._engine, "verify_golden_samples", verify)
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not send(channel, "ServerReady", b"").ready


def test_large_late_and_missing_messages_are_refused() -> None:
    app = Application(digits_bundle(limits={"max_body_bytes": 10_000, "body_seconds": 0.2}))
    path = f"/{SERVICE}/ModelInfer"
    with served_over_grpc(app) as address, grpc.insecure_channel(address) as channel:
        for options in ({}, {"compression": grpc.Compression.Gzip}):
            with pytest.raises(grpc.RpcError) as large:
                send(channel, "ModelInfer", bytes(100_000), **options)
            assert large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError) as missing:
            channel.stream_unary(path)(iter(()))
        assert problem(missing.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "incomplete")
        has_ended = threading.Event()
        late = channel.stream_unary(path).future(iter(has_ended.wait, True))
        assert problem(late.exception())[:2] == (grpc.StatusCode.DEADLINE_EXCEEDED, "too-slow")
        has_ended.set()


def test_a_call_that_its_client_gives_up_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Application(digits_bundle())

    async def predict_never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(app._predictions, "predict", predict_never)
    with served_over_grpc(app) as address, grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as error:
            send(channel, "ModelInfer", b"", timeout=0.2)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        metric = f'route="/{SERVICE}/ModelInfer",status="499"}} 1.0'
        wait_until(lambda: metric in TestClient(app).get("/metrics").text)


def test_workers_share_a_port() -> None:
    apps = [Application(digits_bundle()) for _ in range(2)]
    metric = f'route="/{SERVICE}/ServerLive",status="200"}}'
    port = find_free_port()
    with served_over_grpc(apps[0], port) as address, served_over_grpc(apps[1], port):
        for _ in range(24):
            own_connection = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(address, own_connection) as channel:
                assert send(channel, "ServerLive", b"").live
        assert all(metric in TestClient(app).get("/metrics").text for app in apps)


def test_a_port_that_another_program_has_is_reported() -> None:
    app = Application(digits_bundle())
    with (
        listen(LOOPBACK, 0) as other,
        pytest.raises(ConfigError, match="choose another --grpc-port"),
        served_over_grpc(app, other.getsockname()[1]),
    ):
        pass


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("ipv4:10.0.0.1:4000", "9.9.9.9", "10.0.0.1"),
        ("ipv4:127.0.0.1:4000", "9.9.9.9, 10.0.0.2", "10.0.0.2"),
        ("ipv4:127.0.0.1:4000", " ", "127.0.0.1"),
        ("ipv6:%5B2001:db8::1%5D:4000", "", "2001:db8::1"),
        ("unix:", "", None),
    ],
)
def test_the_address_of_a_client_is_its_own(peer: str, forwarded: str, address: str | None) -> None:
    assert _client_address(peer, forwarded) == address


def test_a_fault_of_the_service_is_not_described_to_clients(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application(digits_bundle())

    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(app._predictions, "predict", fail)
    with (
        served_over_grpc(app) as address,
        grpc.insecure_channel(address) as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        send(channel, "ModelInfer", b"", ("x-request-id", "r1"))
    metrics = TestClient(app).get("/metrics").text
    assert 'cv_factory_problems_total{kind="internal"} 1.0' in metrics
    assert problem(error.value) == (
        grpc.StatusCode.INTERNAL,
        "internal-server-error",
        "the service failed; give its operator the request id r1",
    )
    assert "secret" in caplog.text


def test_stopping_answers_what_has_arrived_and_ends_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Application(digits_bundle())
    stop, predict = GrpcServer.stop, app._predictions._engine.predict
    has_arrived, is_stopping = threading.Semaphore(0), threading.Event()

    async def predict_late(images: Any, logged: Any = None) -> Any:
        has_arrived.release()
        await asyncio.to_thread(is_stopping.wait)
        return await predict(images, logged)

    async def stop_and_note(server: GrpcServer) -> None:
        stopping = asyncio.create_task(stop(server))
        await asyncio.sleep(0)
        is_stopping.set()
        await stopping

    monkeypatch.setattr(app._predictions._engine, "predict", predict_late)
    monkeypatch.setattr(GrpcServer, "stop", stop_and_note)
    request = infer_request(IMAGES[0]).SerializeToString()
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with ExitStack() as service:
        address = service.enter_context(served_over_grpc(app))
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer").future(request)
            stream = channel.stream_stream(f"/{SERVICE}/{STREAM}")(iter(requests.get, None))
            requests.put(request)
            for _ in range(2):
                assert has_arrived.acquire(timeout=30)
            service.close()
            assert message_class("ModelInferResponse").FromString(call.result()).outputs
            response = message_class("ModelStreamInferResponse").FromString(next(stream))
            assert response.infer_response.outputs
            with pytest.raises(grpc.RpcError) as end:
                next(stream)
            requests.put(None)
    assert problem(end.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "stopping")


def test_a_stream_whose_client_is_gone_ends_without_an_error() -> None:
    app = Application(digits_bundle())
    request = infer_request(IMAGES[0]).SerializeToString()

    class GoneContext:
        def invocation_metadata(self) -> tuple[()]:
            return ()

        def peer(self) -> str:
            return "ipv4:127.0.0.1:4000"

        async def read(self) -> Any:
            return request

        async def write(self, _message: bytes) -> None:
            raise grpc.aio.InternalError

    async def stream() -> None:
        await app.build_grpc_server()._methods._stream(None, GoneContext())

    try:
        asyncio.run(stream())
    finally:
        app.close()


def test_a_port_in_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, port in {"": None, "3001": 3001}.items():
        monkeypatch.setenv(GRPC_PORT_VARIABLE, text)
        assert grpc_port() == port
    for text in ("0", "65536", "http"):
        monkeypatch.setenv(GRPC_PORT_VARIABLE, text)
        with pytest.raises(ConfigError, match=f"={text} is no port"):
            grpc_port()
