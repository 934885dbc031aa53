"""An endpoint: real BentoML services that are proven, replaced, killed and stopped wholly."""

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from cv_factory.config.serving import ServingConfig
from cv_factory.deployment.local.endpoint import Endpoint
from cv_factory.deployment.verify import ProofError, encode_png
from cv_factory.errors import ArtifactError, ConfigError
from cv_factory.processes import daemon
from cv_factory.processes.daemon import DaemonError
from cv_factory.serving.auth.api_keys import add_key
from cv_factory.serving.bundle import Bundle
from tests.support.predictors import digits_predictor

START = 120.0


def bundle_of(version: str, *, wrong: bool = False) -> Bundle:
    """Bundle the digits' predictor; a wrong one's golden samples expect something else."""
    predictor, _, _ = digits_predictor("logistic_regression")
    if wrong:
        golden = predictor.golden
        shifted = replace(golden, probabilities=golden.probabilities[:, ::-1].copy())
        predictor = replace(predictor, golden=shifted)
    return Bundle(predictor, ServingConfig(), "digits", version, created="2026-01-01T00:00:00Z")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An endpoint that serves version 1 as 'one'; nothing of it may be left at the end."""
    folder = tmp_path_factory.mktemp("endpoint")
    endpoint = Endpoint(folder, "127.0.0.1", free_port(), drain_seconds=10.0)
    endpoint.put_up("one", bundle_of("1"), START)
    endpoint.route({"one": 1.0})
    yield endpoint
    for name in [path.name for path in (folder / "services").iterdir()]:
        endpoint.remove(name)
    endpoint.close()
    assert left_of(endpoint) == []


def left_of(endpoint: Endpoint) -> list[psutil.Process]:
    """Return every process of an endpoint, whether or not its supervisor lives."""
    services = [path.name for path in (endpoint.folder / "services").glob("*")]
    marks = [f"{endpoint.folder}#{name}" for name in {*services, "one", "two", "front"}]
    return [process for mark in marks for process in daemon.find_by_tag(mark)]


def ask(endpoint: Endpoint, **headers: str) -> httpx.Response:
    image = encode_png(digits_predictor("logistic_regression")[0].golden.images[0])
    headers = {"Content-Type": "image/png", **headers}
    return httpx.post(f"{endpoint.url}/predict", content=image, headers=headers, trust_env=False,
                      timeout=30)  # fmt: skip


def test_an_update_under_load_loses_no_request(served: Endpoint) -> None:
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
        proof = served.put_up("two", bundle_of("2"), START)
        assert set(versions) == {"1"}, "what is not proven yet is given nothing"
        served.route({"two": 1.0})
        served.remove("one")
        seen = len(versions)
        while len(versions) < seen + 20:
            assert all(thread.is_alive() for thread in threads)
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (proof.n_samples, proof.version) == (16, "2")
    assert proof.largest_difference <= 1e-5
    assert set(versions[seen:]) == {"2"}
    assert all(own == sorted(own) for own in by_client), "never back to the old one"
    assert len(versions) > 100


def test_what_does_not_prove_itself_leaves_the_old_service_alone(
    served: Endpoint, tmp_path: Path
) -> None:
    before = ask(served).json()["version"]
    with pytest.raises((DaemonError, ProofError), match="golden"):
        served.put_up("wrong", bundle_of("9", wrong=True), 30.0)
    with pytest.raises(DaemonError, match=r"not ready after 0\.2 s"):
        served.put_up("late", bundle_of("8"), 0.2)
    (name,) = served.shares()
    damaged = served.folder / "services" / "damaged" / "bento"
    shutil.copytree(served.folder / "services" / name / "bento", damaged)
    graph = damaged / "src" / "bundle" / "predictor" / "predictor.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"predictor\.onnx"):
        served.bring_up("damaged", 30.0)
    full = Endpoint(tmp_path / "full", "127.0.0.1", free_port())
    full.folder.write_text("no folder can be made here")
    with pytest.raises(DaemonError, match="cannot be written"):
        full.put_up("one", bundle_of("1"), 30.0)
    taken = Endpoint(served.folder / "other", "127.0.0.1", served.port)
    with pytest.raises(DaemonError, match="cannot be listened on"):
        taken.route({})
    served.remove("damaged")
    assert [path.name for path in (served.folder / "services").iterdir()] == [name]
    assert ask(served).json()["version"] == before


def test_a_killed_worker_is_replaced_and_the_next_request_waits_for_it(served: Endpoint) -> None:
    (name,) = served.shares()
    running = served.running(name)
    assert running is not None
    workers = psutil.Process(running.pid).children()
    assert workers
    for worker in workers:
        worker.kill()
    deadline = time.monotonic() + 25
    while ask(served).status_code != 200:
        assert time.monotonic() < deadline
    assert not {p.pid for p in workers} & {p.pid for p in psutil.Process(running.pid).children()}


def test_a_killed_supervisor_leaves_no_worker_and_the_service_is_brought_back(
    served: Endpoint,
) -> None:
    (name,) = served.shares()
    running = served.running(name)
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(running.pid)] if psutil.pid_exists(running.pid) else [], 5)
    deadline = time.monotonic() + 5
    while served.running(name):
        assert time.monotonic() < deadline
    orphans = [p.pid for p in daemon.find_by_tag(running.mark)]
    served.bring_up(name, START)
    served.route({name: 1.0})
    assert ask(served).status_code == 200
    assert not any(p.pid in orphans for p in daemon.find_by_tag(running.mark))
    served.take_down(name)
    assert daemon.find_by_tag(running.mark) == []
    assert ask(served).status_code == 502


def test_a_front_without_its_supervisor_goes_on_and_is_replaced_by_the_next_deployment(
    served: Endpoint,
) -> None:
    (name,) = served.shares()
    served.bring_up(name, START)
    served.route({name: 1.0})
    front = daemon.load_process(served.folder / "front")
    assert front is not None
    (serving,) = psutil.Process(front.pid).children()
    os.kill(front.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while served.is_open:
        assert time.monotonic() < deadline
    assert ask(served).status_code == 200
    served.route({name: 1.0})
    assert served.is_open
    assert ask(served).status_code == 200
    assert not serving.is_running() or serving.status() == psutil.STATUS_ZOMBIE


def test_keys_are_asked_for_and_elsewhere_than_on_loopback_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CV_FACTORY_GATEWAY", "what stands before the deployer alone")
    exposed = Endpoint(tmp_path / "open", "0.0.0.0", free_port())
    with pytest.raises(ConfigError, match="without asking for keys"):
        exposed.put_up("one", bundle_of("1"), 30.0)
    key = add_key(tmp_path / "keys.json", "ann", ["predict"], None)
    variables = {"CV_FACTORY_API_KEYS_FILE": str(tmp_path / "keys.json")}
    endpoint = Endpoint(tmp_path / "guarded", "127.0.0.1", free_port(), variables)
    try:
        endpoint.put_up("one", bundle_of("1"), START)
        endpoint.route({"one": 1.0})
        running = endpoint.running("one")
        assert running is not None
        assert "CV_FACTORY_GATEWAY" not in psutil.Process(running.pid).environ()
        assert ask(endpoint).status_code == 401
        assert ask(endpoint, **{"X-API-Key": key}).status_code == 200
        assert (endpoint.folder / "services" / "one" / "probe.key").stat().st_mode & 0o077 == 0
    finally:
        endpoint.remove("one")
        endpoint.close()
    assert left_of(endpoint) == []
