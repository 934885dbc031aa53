"""The real thing: BentoML's processes around the application, asked over loopback."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cv_factory.inference.predictor import GoldenSamples, Predictor
from cv_factory.serving.auth.api_keys import FILE_VARIABLE, add_key
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.client import PredictionClient, ServiceError
from tests.support.digits_service import ROOT, Service, digit, digits_bundle, kind
from tests.support.request_fuzzing import fuzzed_requests

#: Set it to 10000 for the full run.
FUZZED_REQUESTS = int(os.environ.get("CV_FACTORY_FUZZED_REQUESTS", "300"))
FORBIDDEN = ("torch", "zenml", "great_expectations", "sklearn", "mlflow", "pandas", "scipy")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, the hash of a key, and the key."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "bundle").mkdir()
    digits_bundle(limits={"max_body_bytes": 100_000}).save(folder / "bundle")
    (folder / "key").write_text(add_key(folder / "keys.json", "ann", ["admin"], None))
    (folder / "digit.png").write_bytes(digit())
    return folder


@pytest.fixture(scope="module")
def service(place: Path) -> Iterator[Service]:
    started = Service(
        place / "bundle", place / "output", **{FILE_VARIABLE: str(place / "keys.json")}
    )
    try:
        started.wait()
        yield started
    finally:
        started.stop()


@pytest.fixture
def client(service: Service, place: Path) -> Iterator[PredictionClient]:
    with PredictionClient(service.url, (place / "key").read_text()) as opened:
        yield opened


def test_the_client_gets_typed_answers_and_typed_refusals(
    client: PredictionClient, service: Service
) -> None:
    assert client.is_ready()
    prediction = client.predict(digit())
    batch = client.predict_batch([digit(0), digit(1)])
    assert (prediction.model, prediction.version) == ("digits", "7")
    assert batch[0].label == prediction.label
    assert client.model_info()["classes"] == [str(n) for n in range(10)]
    with pytest.raises(ServiceError, match="not an image") as refused:
        client.predict(b"no image")
    assert (refused.value.status, refused.value.kind) == (422, "image")
    with PredictionClient(service.url) as stranger, pytest.raises(ServiceError, match="API key"):
        stranger.predict(digit())
    with PredictionClient("http://127.0.0.1:9") as lost, pytest.raises(ServiceError, match="9 can"):
        lost.predict(digit())


def test_run_py_predicts_with_the_service_and_with_the_bundle_alike(
    service: Service, place: Path
) -> None:
    def predict(*arguments: str) -> list[str]:
        command = [sys.executable, "run.py", "predict", str(place / "digit.png"), *arguments]
        env = {**os.environ, "CV_FACTORY_API_KEY": (place / "key").read_text()}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[1:6]

    assert predict("--url", service.url) == predict("--bundle", str(place / "bundle"))


def test_large_bodies_are_refused_over_a_real_connection(service: Service, place: Path) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    headers = {"X-API-Key": (place / "key").read_text(), "Content-Type": "image/png"}
    declared = httpx.post(f"{service.url}/predict", content=b"x" * 200_000, headers=headers)
    streamed = httpx.post(f"{service.url}/predict", content=endless(), headers=headers)
    assert [kind(declared), kind(streamed)] == ["body-too-large"] * 2


def test_damaged_requests_over_a_real_connection_leave_the_service_well(
    service: Service, place: Path, client: PredictionClient
) -> None:
    workers = [worker.pid for worker in service.workers()]
    headers = {"X-API-Key": (place / "key").read_text()}
    with httpx.Client(base_url=service.url, headers=headers) as plain:
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
    service: Service, client: PredictionClient
) -> None:
    failures: list[str] = []
    enough = threading.Event()

    def ask_all_the_time() -> None:
        while not enough.is_set():
            try:
                client.predict(digit())
            except ServiceError as error:
                failures.append(str(error))

    asking = threading.Thread(target=ask_all_the_time)
    asking.start()
    [worker] = service.workers()
    worker.kill()
    killed = time.monotonic()
    try:
        while worker.is_running() or not client.is_ready():
            assert time.monotonic() - killed < 60, service.output.read_text()
    finally:
        enough.set()
        asking.join()
    assert client.predict(digit()).version == "7"
    assert all("cannot be reached" in failure for failure in failures), set(failures)


def test_a_worker_holds_nothing_of_training(service: Service) -> None:
    [worker] = service.workers()
    mapped = "\n".join(entry.path for entry in worker.memory_maps())
    assert "onnxruntime" in mapped
    for name in FORBIDDEN:
        assert f"/{name}/" not in mapped


def test_importing_the_service_imports_nothing_heavy() -> None:
    code = (
        "import sys, cv_factory.serving.service, cv_factory.serving.application\n"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_service_that_may_not_be_open_does_not_start(place: Path, tmp_path: Path) -> None:
    started = Service(place / "bundle", tmp_path / "output", "--host", "0.0.0.0")
    assert started.process.wait(60) == 2
    assert FILE_VARIABLE in started.output.read_text()


def test_a_taken_port_is_said_to_be_taken(service: Service, place: Path, tmp_path: Path) -> None:
    port = service.url.rpartition(":")[2]
    second = Service(place / "bundle", tmp_path / "output", "--port", port)
    assert second.process.wait(60) == 2
    assert f"port {port} cannot be listened on" in second.output.read_text()


def test_a_predictor_that_answers_otherwise_ends_the_service(tmp_path: Path) -> None:
    good = digits_bundle()
    golden = good.predictor.golden
    shifted = GoldenSamples(golden.images, golden.probabilities[:, ::-1].copy(), golden.features)
    changed = Predictor(good.predictor.graph, good.predictor.contract, shifted)
    (tmp_path / "bundle").mkdir()
    Bundle(changed, good.serving, "digits", "8", good.created).save(tmp_path / "bundle")
    started = Service(tmp_path / "bundle", tmp_path / "output")
    assert started.process.wait(90) == 1
    assert "golden samples differently" in started.output.read_text()


def test_a_damaged_bundle_does_not_start(place: Path, tmp_path: Path) -> None:
    started = Service(place, tmp_path / "output")
    assert started.process.wait(60) == 1
    assert "bundle.json does not exist" in started.output.read_text()


def test_the_log_has_a_line_a_request_and_no_key(service: Service, place: Path) -> None:
    text = service.output.read_text()
    assert '"path":"/predict","status":200' in text
    assert (place / "key").read_text() not in text
    assert "Traceback" not in text
