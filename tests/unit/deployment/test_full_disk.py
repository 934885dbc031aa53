"""A real full disk: what cannot be deployed says so, and what serves goes on serving."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from cv_factory.config.serving import LogConfig
from cv_factory.deployment.local.endpoint import LocalEndpoint
from cv_factory.inference.predictor import ImageScores
from cv_factory.processes import daemon
from cv_factory.processes.daemon import DaemonError
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.logging.prediction_log import (
    PredictionLog,
    find_log_files,
    read_predictions,
)
from cv_factory.serving.postprocessors import PostprocessedPrediction
from tests.support.waiting import wait_until
from tests.unit.deployment.test_endpoint import START, find_processes, make_bundle, predict

pytestmark = pytest.mark.engines


@pytest.fixture
def small_disk(
    tmp_path: Path, engine: Callable[..., str], missing_engine: Callable[[str], NoReturn]
) -> Iterator[Path]:
    """A file system of 4 MB."""
    mount, umount = engine("mount"), engine("umount")
    if os.getuid() != 0:
        missing_engine("only root mounts a file system")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run([umount, str(place)], check=True)


def test_a_full_disk_stops_the_deployment_and_not_the_service(small_disk: Path) -> None:
    endpoint = LocalEndpoint(
        small_disk / "digits",
        "127.0.0.1",
        find_free_port(),
        start_timeout_s=START,
        drain_timeout_s=5.0,
    )
    try:
        endpoint.deploy("one", make_bundle("1"))
        endpoint.set_weights({"one": 1.0})
        assert predict(endpoint).json()["version"] == "1"
        _fill(small_disk)
        with pytest.raises(DaemonError, match=r"two cannot be written \(.*No space left"):
            endpoint.deploy("two", make_bundle("2"), keep={"one"})
        with pytest.raises(DaemonError, match=r"front cannot be written \(No space left"):
            endpoint.set_weights({"one": 0.5})
        # Nor is a proxy ended that lost its supervisor, before another can take its place.
        _kill_supervisor(endpoint)
        with pytest.raises(DaemonError, match=r"front cannot be written \(No space left"):
            endpoint.set_weights({"one": 0.5})
        assert [path.name for path in (endpoint.folder / "services").iterdir()] == ["one"]
        # Nor does what cannot be logged keep anyone from being answered.
        assert [predict(endpoint).json()["version"] for _ in range(50)] == ["1"] * 50
        (small_disk / "filler").unlink()
        _logs_again(endpoint)
        endpoint.set_weights({"one": 1.0})
        assert endpoint.is_open
    finally:
        endpoint.remove("one")
        endpoint.close()
    assert find_processes(endpoint) == []


def test_a_full_disk_cuts_no_line_of_the_prediction_log_and_begins_no_file(
    small_disk: Path,
) -> None:
    folder = small_disk / "predictions"
    log = PredictionLog(
        folder, "digits", "1", LogConfig(prediction_files=2), class_names=list("0123456789")
    )
    scores = ImageScores(np.full(10, 0.1, np.float32), np.full(10, 0.1, np.float32))

    def put(name: str) -> None:
        log.put(
            ScoredImage(name, PostprocessedPrediction("3", {"3": 0.1}), scores),
            "anyone",
            "request",
        )

    try:
        put("before")
        wait_until(lambda: list(read_predictions(folder)) != [])
        _fill(small_disk)
        for number in range(5):
            # More than the rest of the file's last page, of which a part could be written.
            put(2000 * "cut")
            wait_until(lambda: log.dropped == number + 1)  # noqa: B023 - awaited within the loop
        (small_disk / "filler").unlink()
        put("after")
    finally:
        log.close()
    (file,) = find_log_files(folder)
    assert b"cut" not in file.read_bytes()
    assert [p["id"] for p in read_predictions(folder)] == ["before", "after"]


def _kill_supervisor(endpoint: LocalEndpoint) -> None:
    proxy = daemon.load_process(endpoint.folder / "front")
    assert proxy is not None
    os.kill(proxy.pid, signal.SIGKILL)
    wait_until(lambda: not endpoint.is_open)


def _fill(place: Path) -> None:
    """Write until nothing more fits, not one byte."""
    with (place / "filler").open("wb", buffering=0) as file:
        for size in (2**16, 2**10, 1):
            try:
                while file.write(size * b"x") == size:
                    pass
            except OSError:
                continue


def _logs_again(endpoint: LocalEndpoint) -> None:
    def is_logged() -> bool:
        assert predict(endpoint, **{"X-Request-ID": "after-the-flood"}).status_code == 200
        return "after-the-flood" in endpoint.log_file("one").read_text()

    wait_until(is_logged)
