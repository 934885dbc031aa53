"""BentoML's processes around the application, over loopback."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner, Result
from tritonclient.grpc import InferenceServerClient, InferenceServerException, InferInput

from cv_factory.processes.ports import find_free_port
from cv_factory.serving.__main__ import main
from cv_factory.serving.auth.api_keys import FILE_VARIABLE
from cv_factory.serving.service_environment import BUNDLE_VARIABLE, server_directory
from cv_factory_client import PredictionClient, RetryPolicy, ServiceError
from tests.support.digits_service import (
    DigitsService,
    ServiceProcess,
    digit_png,
    digits_bundle,
    problem_kind,
)
from tests.support.paths import ROOT
from tests.support.predictors import with_wrong_golden_samples
from tests.support.request_fuzzing import fuzzed_requests
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

#: Set it to 10000 for the full run.
FUZZED_REQUESTS = int(os.environ.get("CV_FACTORY_FUZZED_REQUESTS", "300"))
FORBIDDEN = ("torch", "zenml", "great_expectations", "sklearn", "mlflow", "pandas", "scipy")


@pytest.fixture
def client(service: DigitsService) -> Iterator[PredictionClient]:
    with PredictionClient(service.url, service.key) as client:
        yield client


def test_the_client_returns_typed_predictions_and_errors(
    client: PredictionClient, service: DigitsService
) -> None:
    assert client.is_ready()
    prediction = client.predict(digit_png())
    batch = client.predict_batch([digit_png(0), digit_png(1)])
    assert (prediction.model, prediction.version) == ("digits", "7")
    assert batch[0].label == prediction.label
    assert client.model_info().classes == tuple(map(str, range(10)))
    with pytest.raises(ServiceError, match="not an image") as caught:
        client.predict(b"no image")
    assert (caught.value.status, caught.value.kind) == (422, "image")
    with (
        PredictionClient(service.url) as anonymous,
        pytest.raises(ServiceError, match="API key"),
    ):
        anonymous.predict(digit_png())
    unreachable = "http://127.0.0.1:9"
    with (
        PredictionClient(unreachable, retries=RetryPolicy(attempts=1)) as disconnected,
        pytest.raises(ServiceError, match="9 cannot be reached"),
    ):
        disconnected.predict(digit_png())


def test_tritons_client_predicts_over_grpc(
    client: PredictionClient, service: DigitsService
) -> None:
    image = InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([digit_png()], object))
    with InferenceServerClient(service.grpc_address) as triton:
        assert triton.is_server_ready()
        result = triton.infer("digits", [image], headers={"x-api-key": service.key})
        with pytest.raises(InferenceServerException, match="API key"):
            triton.infer("digits", [image])
    assert result.as_numpy("label")[0].decode() == client.predict(digit_png()).label


def test_large_bodies_are_rejected_over_a_real_connection(service: DigitsService) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    headers = {"X-API-Key": service.key, "Content-Type": "image/png"}
    declared = httpx.post(f"{service.url}/predict", content=b"x" * 200_000, headers=headers)
    streamed = httpx.post(f"{service.url}/predict", content=endless(), headers=headers)
    assert [problem_kind(declared), problem_kind(streamed)] == ["body-too-large"] * 2


def test_the_service_survives_damaged_requests(
    service: DigitsService, client: PredictionClient
) -> None:
    workers = [worker.pid for worker in service.workers()]
    with httpx.Client(base_url=service.url, headers={"X-API-Key": service.key}) as plain:
        for request in fuzzed_requests(11, FUZZED_REQUESTS):
            response = plain.post(
                request.path, content=request.body, headers={"Content-Type": request.content_type}
            )
            assert response.status_code == 200 or 400 <= response.status_code < 500, request
        metrics = plain.get("/metrics").text
    assert 'cv_factory_requests_total{route="/predict",status="200"}' in metrics
    assert client.is_ready()
    assert [worker.pid for worker in service.workers()] == workers


def test_a_worker_that_is_killed_under_load_is_replaced(
    service: DigitsService, client: PredictionClient
) -> None:
    failures: list[str] = []
    is_done = threading.Event()

    def send_requests() -> None:
        while not is_done.is_set():
            try:
                client.predict(digit_png())
            except ServiceError as error:
                failures.append(str(error))

    keys = service.folder / "keys.json"
    load = threading.Thread(target=send_requests)
    load.start()
    [worker] = service.workers()
    # What is needed at a start is away for a moment: the new worker tries again.
    keys.rename(service.folder / "away.json")
    worker.kill()
    try:
        wait_until(lambda: '"event": "cannot-start"' in service.output.read_text())
        (service.folder / "away.json").rename(keys)
        wait_until(lambda: not worker.is_running() and client.is_ready())
        with InferenceServerClient(service.grpc_address) as triton:
            assert triton.is_server_ready()
    finally:
        is_done.set()
        load.join()
    assert client.predict(digit_png()).version == "7"
    assert all("cannot be reached" in failure for failure in failures), set(failures)


def test_a_worker_loads_nothing_of_training(service: DigitsService) -> None:
    [worker] = service.workers()
    mapped = "\n".join(entry.path for entry in worker.memory_maps())
    assert "onnxruntime" in mapped
    for name in FORBIDDEN:
        assert f"/{name}/" not in mapped


def test_importing_the_service_imports_nothing_heavy() -> None:
    names = (*FORBIDDEN, "grpc", "google.protobuf")
    code = (
        "import sys, cv_factory.serving.service, cv_factory.serving.application\n"
        f"print([name for name in {names!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def serve(bundle: Path, *arguments: str) -> Result:
    """Run the command line of the service in this process, up to its checks."""
    return CliRunner().invoke(main, [str(bundle), *arguments])


def test_an_exposed_service_without_keys_does_not_start(service: DigitsService) -> None:
    result = serve(service.folder / "bundle", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert FILE_VARIABLE in result.output


def test_a_port_in_use_is_reported(service: DigitsService) -> None:
    port = service.url.rpartition(":")[2]
    result = serve(service.folder / "bundle", "--port", port)
    assert result.exit_code == 2
    assert f"Cannot listen on 127.0.0.1 port {port}" in result.output


def test_a_grpc_port_in_use_is_reported(service: DigitsService) -> None:
    port = service.grpc_address.rpartition(":")[2]
    other = ["--port", str(find_free_port()), "--grpc-port", port]
    result = serve(service.folder / "bundle", *other)
    assert result.exit_code == 2
    assert f"Cannot listen on 127.0.0.1 port {port}" in result.output
    assert "choose another --grpc-port" in result.output


def test_what_stands_in_the_place_of_the_servers_directory_is_named(
    service: DigitsService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for variable in (BUNDLE_VARIABLE, "BENTOML_DO_NOT_TRACK"):
        monkeypatch.setenv(variable, "")
    server_directory(os.getpid()).touch()
    result = serve(service.folder / "bundle", "--port", str(find_free_port()))
    assert result.exit_code == 2
    assert "(File exists): set TMPDIR." in result.output


def test_a_damaged_bundle_does_not_start(service: DigitsService) -> None:
    result = serve(service.folder)
    assert result.exit_code == 1
    assert "bundle.json does not exist" in result.output


def test_a_predictor_with_other_answers_than_at_export_stops_the_service(tmp_path: Path) -> None:
    bundle = digits_bundle()
    changed = replace(bundle, predictor=with_wrong_golden_samples(bundle.predictor))
    (tmp_path / "bundle").mkdir()
    changed.save(tmp_path / "bundle")
    process = ServiceProcess(tmp_path / "bundle", tmp_path / "output")
    assert process.process.wait() == 1
    assert "golden samples differently" in process.output.read_text()


def test_the_log_has_requests_and_no_key(service: DigitsService, client: PredictionClient) -> None:
    client.predict(digit_png())
    wait_until(lambda: '"path":"/predict","status":200' in service.output.read_text())
    text = service.output.read_text()
    assert service.key not in text
    assert "Traceback" not in text
