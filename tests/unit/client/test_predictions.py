"""The clients against an application in this process: images, batches, errors, TLS."""

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from cli.main import command
from cv_factory.serving.application import Application
from cv_factory_client import (
    AsyncPredictionClient,
    ClientConfigError,
    ImagePrediction,
    ModelInfo,
    PredictionClient,
    RetryPolicy,
    ServiceError,
)
from tests.support.certificates import CertificateAuthority
from tests.support.digits_service import digit_png, digits_bundle
from tests.support.grpc_service import served_over_grpc

IMAGES = [digit_png(n) for n in range(7)]


@pytest.fixture(scope="module")
def app() -> Iterator[Application]:
    app = Application(digits_bundle(limits={"max_images": 4}))
    yield app
    app.close()


def open_client(app: Application) -> AsyncPredictionClient:
    return AsyncPredictionClient("http://service", transport=httpx.ASGITransport(app))


def test_one_image_a_batch_and_a_stream_give_the_same_predictions(app: Application) -> None:
    async def predict() -> None:
        async with open_client(app) as client:
            assert (await client.model_info()).input_shape == (8, 8, 1)
            single = [await client.predict(image) for image in IMAGES]
            batch = await client.predict_batch(IMAGES[:4])
            # Read as it is consumed, two requests ahead at most.
            stream = client.predict_many(iter(IMAGES), batch_size=3)
            streamed = [prediction async for prediction in stream]
            assert await client.predict_batch([]) == []
        answers = [(p.label, p.probabilities, p.model, p.version) for p in single]
        assert [(p.label, p.probabilities, p.model, p.version) for p in batch] == answers[:4]
        assert [(p.label, p.probabilities, p.model, p.version) for p in streamed] == answers
        assert len({p.id for p in [*single, *batch, *streamed]}) == 18

    asyncio.run(predict())


def test_an_error_names_the_images_of_the_stream(app: Application) -> None:
    async def predict() -> None:
        async with open_client(app) as client:
            images = [*IMAGES, b"no image"]
            expected = r"images 6 to 7 of the stream: http://service rejected .* image 1 cannot"
            with pytest.raises(ServiceError, match=expected) as caught:
                [p async for p in client.predict_many(images, batch_size=2)]
            assert (caught.value.status, caught.value.kind) == (422, "image")
            with pytest.raises(ServiceError, match=r"images 0 to 4 .*413"):
                [p async for p in client.predict_many(images, batch_size=5)]

    asyncio.run(predict())


def answer_by_size(request: httpx.Request) -> httpx.Response:
    """Answer with the number of bytes of each image as its label."""
    parts = request.read().split(b"filename=")[1:] if b"filename=" in request.read() else [b""]
    rows = [{"id": "1", "label": str(part.count(b"x")), "probabilities": {}} for part in parts]
    if len(rows) == 1:
        rows[0]["label"] = str(request.read().count(b"x"))
    return httpx.Response(200, json={"predictions": rows, "model": "m", "version": "1"})


def test_batches_are_bounded_in_number_and_bytes_and_read_lazily() -> None:
    requests: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        response = answer_by_size(request)
        requests.append(len(response.json()["predictions"]))
        return response

    n_read = 0

    def images() -> Iterator[bytes]:
        nonlocal n_read
        for size in (1, 2, 3, 50, 4, 4, 4, 4):
            n_read += 1
            yield b"x" * size

    with PredictionClient("http://service", transport=httpx.MockTransport(answer)) as client:
        stream = client.predict_many(images(), batch_size=3, batch_bytes=10, n_concurrent=1)
        assert next(stream).label == "1"
        assert n_read == 4
        assert [p.label for p in stream] == ["2", "3", "50", "4", "4", "4", "4"]
        assert requests == [3, 1, 2, 2]
        with pytest.raises(ValueError, match="batch_size is 0"):
            next(client.predict_many([b""], batch_size=0))


class _Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
        row = {"id": "1", "label": "3", "probabilities": {"3": 0.75}}
        answer = {"predictions": [row], "model": "digits", "version": "7"}
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def https_port(tmp_path: Path) -> Iterator[int]:
    certificate, key = CertificateAuthority(tmp_path).issue()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), _Service) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server.server_port
        server.shutdown()


def test_a_service_with_a_certificate_of_ones_own_ca(https_port: int, tmp_path: Path) -> None:
    url, ca = f"https://127.0.0.1:{https_port}", tmp_path / "ca.pem"

    async def is_ready() -> bool:
        async with AsyncPredictionClient(url, ca=ca) as client:
            return await client.is_ready()

    with PredictionClient(url, ca=ca) as client:
        assert client.is_ready()
    assert asyncio.run(is_ready())
    (tmp_path / "3.png").write_bytes(IMAGES[3])
    arguments = ["predict", str(tmp_path / "3.png"), "--url", url, "--ca", str(ca)]
    printed = CliRunner().invoke(command, arguments, catch_exceptions=False).output
    assert printed.endswith("3.png: 3  75.0%  digits version 7  prediction 1\n")
    with PredictionClient(url) as client:  # a retry would not help: no wait
        with pytest.raises(ServiceError, match=r"VERIFY_FAILED.*name the CA's file") as caught:
            client.predict(b"")
        assert not caught.value.is_retryable


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("PRIVATE KEY", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n", "cannot be used"),
    ],
)
def test_a_ca_file_that_is_none_is_refused(
    content: str | None, reason: str, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_text(content)
    with pytest.raises(ClientConfigError, match=f"ca.pem.* {reason}"):
        PredictionClient("https://127.0.0.1:9", ca=ca)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_ca_of_an_address_without_tls_is_refused(scheme: str, tmp_path: Path) -> None:
    CertificateAuthority(tmp_path)
    with pytest.raises(ClientConfigError, match="begins with https:// or grpcs://") as caught:
        PredictionClient(f"{scheme}://user:secret@a.example", ca=tmp_path / "ca.pem")
    assert "secret" not in str(caught.value)


def test_another_web_server_is_no_prediction_service() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>"))
    with PredictionClient(
        "http://service", transport=transport, retries=RetryPolicy(attempts=1)
    ) as client:
        for call in (lambda: client.predict(b""), client.model_info):
            with pytest.raises(ServiceError, match="is not a prediction service"):
                call()


def test_grpc_gives_the_predictions_of_http() -> None:
    settings = {"top_k": 3, "labels": {"4": "a:b"}, "abstain_below": 0.9}
    bundle = digits_bundle(
        has_familiarity=True,
        postprocessor={"name": "ranked", "settings": settings},
        cache={"max_entries": 4},
    )
    app = Application(bundle)

    async def by_http() -> tuple[list[ImagePrediction], ModelInfo]:
        async with open_client(app) as client:
            return await client.predict_batch(IMAGES), await client.model_info()

    async def by_async_grpc(url: str) -> list[ImagePrediction]:
        async with AsyncPredictionClient(url) as client:
            assert await client.is_ready()
            return [p async for p in client.predict_many(IMAGES, batch_size=3)]

    with served_over_grpc(app) as address, PredictionClient(f"grpc://{address}") as client:
        over_http, info = asyncio.run(by_http())
        over_grpc = list(client.predict_many(IMAGES, batch_size=3))
        cached = client.predict(IMAGES[-1])
        over_async_grpc = asyncio.run(by_async_grpc(f"grpc://{address}"))
        with pytest.raises(ServiceError, match=r"\(422\): image 1 cannot be used") as caught:
            client.predict_batch([IMAGES[0], b"no image"])
        metadata = client.model_info()
    expected = [replace(p, id="", cached=False) for p in over_http]
    assert [replace(p, id="", cached=False) for p in over_grpc] == expected
    assert [replace(p, id="", cached=False) for p in over_async_grpc] == expected
    assert {p.label for p in over_http} >= {"a:b"}
    assert cached.cached
    assert (caught.value.kind, len(caught.value.request_id)) == ("image", 32)
    assert (metadata.model, metadata.version, metadata.input_shape) == (
        info.model,
        info.version,
        info.input_shape,
    )
