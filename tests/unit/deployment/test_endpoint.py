"""An endpoint: real BentoML services that are verified, replaced, killed and stopped wholly."""

import http.client
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from cv_factory.config.serving import ServingConfig
from cv_factory.data.encode import encode_png
from cv_factory.deployment.local.endpoint import LocalEndpoint
from cv_factory.deployment.traffic import Share, Traffic
from cv_factory.deployment.verify import VerificationError
from cv_factory.errors import ArtifactError, ConfigError
from cv_factory.processes import daemon
from cv_factory.processes.daemon import DaemonError
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.auth.api_keys import add_key
from cv_factory.serving.bundle import Bundle
from tests.support.predictors import digits_predictor
from tests.support.processes import is_running, wait_until_ended
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

START = 120.0


def make_bundle(version: str, *, wrong: bool = False) -> Bundle:
    """Bundle the digits' predictor; a wrong one's golden samples expect something else."""
    predictor, _, _ = digits_predictor("logistic_regression")
    if wrong:
        golden = predictor.golden
        shifted = replace(golden, probabilities=golden.probabilities[:, ::-1].copy())
        predictor = replace(predictor, golden=shifted)
    return Bundle(predictor, ServingConfig(), "digits", version, created="2026-01-01T00:00:00Z")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEndpoint]:
    """An endpoint that serves version 1 as 'one'; nothing of it may be left at the end."""
    folder = tmp_path_factory.mktemp("endpoint")
    endpoint = LocalEndpoint(
        folder, "127.0.0.1", find_free_port(), start_timeout_s=START, drain_timeout_s=10.0
    )
    endpoint.deploy("one", make_bundle("1"))
    endpoint.set_weights({"one": 1.0})
    yield endpoint
    for name in [path.name for path in (folder / "services").iterdir()]:
        endpoint.remove(name)
    endpoint.close()
    assert find_processes(endpoint) == []


def find_processes(endpoint: LocalEndpoint) -> list[psutil.Process]:
    """Return every process of an endpoint, whether or not its supervisor lives."""
    services = [path.name for path in (endpoint.folder / "services").glob("*")]
    marks = [f"{endpoint.folder}#{name}" for name in {*services, "one", "two", "front"}]
    return [process for mark in marks for process in daemon.find_by_tag(mark)]


def predict(endpoint: LocalEndpoint, **headers: str) -> httpx.Response:
    image = encode_png(digits_predictor("logistic_regression")[0].golden.images[0])
    headers = {"Content-Type": "image/png", **headers}
    return httpx.post(f"{endpoint.url}/predict", content=image, headers=headers, trust_env=False,
                      timeout=30)  # fmt: skip


def predictions(endpoint: LocalEndpoint, version: str, arm: str) -> int:
    """Return how many requests of clients a version was given, or copies of them."""
    labels = f'arm="{arm}",model="{endpoint.folder.name}",protocol="http",version="{version}"'
    metrics = httpx.get(f"{endpoint.url}/metrics", trust_env=False, timeout=30).text
    (count,) = re.findall(rf"^cv_factory_proxy_requests_total{{{labels}}} (\d+)", metrics, re.M)
    return int(count)


def test_an_update_under_load_loses_no_request(served: LocalEndpoint) -> None:
    versions: list[str] = []
    by_client: tuple[list[str], list[str]] = [], []
    stop = threading.Event()

    def load(own: list[str]) -> None:
        image = encode_png(digits_predictor("logistic_regression")[0].golden.images[0])
        with httpx.Client(base_url=served.url, trust_env=False, timeout=30) as client:
            while not stop.is_set():
                response = client.post(
                    "/predict", content=image, headers={"Content-Type": "image/png"}
                )
                own.append(response.json()["version"])
                versions.append(own[-1])

    threads = [threading.Thread(target=load, args=(own,)) for own in by_client]
    for thread in threads:
        thread.start()
    try:
        result = served.deploy("two", make_bundle("2"), keep={"one"})
        assert set(versions) == {"1"}, "what is not verified yet is given nothing"
        served.set_traffic(Traffic({"one": Share(1.0), "two": Share(0.5, "shadow")}))
        wait_until(lambda: predictions(served, "2", "shadow") >= 10)
        assert predictions(served, "1", "stable") >= 20
        assert set(versions) == {"1"}, "a shadow answers nobody"
        served.set_traffic(served.traffic().all_to("two"))
        served.remove("one")
        seen = len(versions)
        while len(versions) < seen + 20:
            assert all(thread.is_alive() for thread in threads)
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (result.n_samples, result.version) == (20, "2")
    assert result.largest_difference <= 1e-5
    assert set(versions[seen:]) == {"2"}
    assert all(own == sorted(own) for own in by_client), "never back to the old one"
    assert len(versions) > 100


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_client_that_sends_too_much_reads_why(served: LocalEndpoint, is_chunked: bool) -> None:
    part, n_parts = b"z" * 100_000, 150
    body = iter([part] * n_parts) if is_chunked else part * n_parts
    for _ in range(3):
        client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        client.request("POST", "/predict", body, {"Content-Type": "image/png"},
                       encode_chunked=is_chunked)  # fmt: skip
        response = client.getresponse()
        assert (response.status, json.load(response)["title"]) == (413, "body too large")
        body = iter([part] * n_parts) if is_chunked else body


def test_a_failed_verification_leaves_the_old_service_alone(
    served: LocalEndpoint, tmp_path: Path
) -> None:
    before = predict(served).json()["version"]
    with pytest.raises((DaemonError, VerificationError), match="golden"):
        served.deploy("wrong", make_bundle("9", wrong=True), keep=served.weights())
    with pytest.raises(DaemonError, match=r"not ready after 0\.2 s"):
        replace(served, start_timeout_s=0.2).deploy("late", make_bundle("8"), keep=served.weights())
    (name,) = served.weights()
    damaged = served.folder / "services" / "damaged" / "bento"
    shutil.copytree(served.folder / "services" / name / "bento", damaged)
    graph = damaged / "src" / "bundle" / "predictor" / "predictor.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"predictor\.onnx"):
        served.start("damaged")
    full = LocalEndpoint(tmp_path / "full", "127.0.0.1", find_free_port())
    full.folder.write_text("no folder can be made here")
    with pytest.raises(DaemonError, match="cannot be written"):
        full.deploy("one", make_bundle("1"))
    taken = LocalEndpoint(served.folder / "other", "127.0.0.1", served.port)
    with pytest.raises(DaemonError, match=r"used by the proxy of .* --set endpoint\.port=\d+"):
        taken.deploy("one", make_bundle("1"))
    assert not taken.folder.exists(), "found before anything is built"
    served.remove("damaged")
    assert [path.name for path in (served.folder / "services").iterdir()] == [name]
    assert predict(served).json()["version"] == before


def test_a_killed_worker_is_replaced_and_the_next_request_waits_for_it(
    served: LocalEndpoint,
) -> None:
    (name,) = served.weights()
    running = served.running(name)
    assert running is not None
    workers = psutil.Process(running.pid).children()
    assert workers
    for worker in workers:
        worker.kill()
    wait_until(lambda: predict(served).status_code == 200, 25)
    assert not {p.pid for p in workers} & {p.pid for p in psutil.Process(running.pid).children()}


def test_a_killed_supervisor_leaves_no_worker_and_the_service_is_restarted(
    served: LocalEndpoint,
) -> None:
    (name,) = served.weights()
    running = served.running(name)
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    wait_until_ended(running.pid)
    wait_until(lambda: not served.running(name))
    orphans = [p.pid for p in daemon.find_by_tag(running.tag)]
    served.start(name)
    served.set_weights({name: 1.0})
    assert predict(served).status_code == 200
    assert not any(p.pid in orphans for p in daemon.find_by_tag(running.tag))
    served.stop(name)
    assert daemon.find_by_tag(running.tag) == []
    assert predict(served).status_code == 503


def test_a_proxy_without_its_supervisor_serves_and_is_replaced_by_the_next_deployment(
    served: LocalEndpoint,
) -> None:
    (name,) = served.weights()
    served.start(name)
    served.set_weights({name: 1.0})
    proxy = daemon.load_process(served.folder / "front")
    assert proxy is not None
    (serving,) = psutil.Process(proxy.pid).children()
    os.kill(proxy.pid, signal.SIGKILL)
    wait_until(lambda: not served.is_open)
    assert predict(served).status_code == 200
    served.set_weights({name: 1.0})
    assert served.is_open
    assert predict(served).status_code == 200
    assert not is_running(serving.pid)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:3000"),
        ("::1", "http://[::1]:3000"),
        ("::", "http://[::1]:3000"),
        ("models.example", "http://models.example:3000"),
    ],
)
def test_the_url_reaches_any_host(host: str, url: str) -> None:
    assert LocalEndpoint(Path("none"), host, 3000).url == url


def test_a_service_that_is_gone_is_missing_whatever_the_routes_say(tmp_path: Path) -> None:
    routes = tmp_path / "front" / "routes.json"
    routes.parent.mkdir()
    routes.write_text("{")
    endpoint = LocalEndpoint(tmp_path, "127.0.0.1", find_free_port())
    assert endpoint.health("gone").state == "missing"


def test_keys_are_asked_for_and_elsewhere_than_on_loopback_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CV_FACTORY_GATEWAY", "what stands before the deployer alone")
    exposed = LocalEndpoint(tmp_path / "open", "0.0.0.0", find_free_port())
    with pytest.raises(ConfigError, match="without access control"):
        exposed.deploy("one", make_bundle("1"))
    key = add_key(tmp_path / "keys.json", "ann", ["predict"], None)
    variables = {"CV_FACTORY_API_KEYS_FILE": str(tmp_path / "keys.json")}
    endpoint = LocalEndpoint(tmp_path / "guarded", "127.0.0.1", find_free_port(), variables, START)
    try:
        endpoint.deploy("one", make_bundle("1"))
        endpoint.set_weights({"one": 1.0})
        running = endpoint.running("one")
        assert running is not None
        assert "CV_FACTORY_GATEWAY" not in psutil.Process(running.pid).environ()
        assert predict(endpoint).status_code == 401
        assert predict(endpoint, **{"X-API-Key": key}).status_code == 200
        assert (endpoint.folder / "services" / "one" / "probe.key").stat().st_mode & 0o077 == 0
    finally:
        endpoint.remove("one")
        endpoint.close()
    assert find_processes(endpoint) == []
