"""A bundle of the digits predictor, its application in this process, and a real service of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from PIL import Image
from starlette.testclient import TestClient

from cv_factory.config.serving import ServingConfig
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.application import Application
from cv_factory.serving.auth.api_keys import FILE_VARIABLE, ApiKeyStore, add_key
from cv_factory.serving.bundle import Bundle
from cv_factory_client import PredictionClient
from tests.support.images import encode
from tests.support.paths import ROOT
from tests.support.predictors import digits_predictor
from tests.support.processes import command_line
from tests.support.waiting import wait_until


def digits_bundle(
    model: str = "logistic_regression", *, has_familiarity: bool = False, **serving: Any
) -> Bundle:
    """Return a bundle of a small model with this serving configuration."""
    predictor, _, _ = digits_predictor(model, has_familiarity=has_familiarity)
    config = ServingConfig.model_validate(serving)
    return Bundle(predictor, config, "digits", "7", "2026-01-01T00:00:00+00:00")


def digit_png(number: int = 0) -> bytes:
    """Return one of the digits as PNG."""
    return encode(
        Image.fromarray(digits_predictor("logistic_regression")[1].images[number][..., 0])
    )


@contextmanager
def app_client(
    keys: ApiKeyStore | None = None, state_file: Path | None = None, **serving: Any
) -> Iterator[httpx.Client]:
    """Yield a client of a digits application in this process."""
    app = Application(digits_bundle(**serving), keys=keys, state_file=state_file)
    try:
        yield TestClient(app, raise_server_exceptions=False)
    finally:
        app.close()


def post_image(client: httpx.Client, content: bytes, **options: Any) -> httpx.Response:
    """Post one image as a raw body to ``/predict``, or to another path."""
    headers = {"Content-Type": "application/octet-stream", **options.pop("headers", {})}
    return client.post(options.pop("path", "/predict"), content=content, headers=headers, **options)


def problem_kind(response: httpx.Response) -> str:
    """Return the kind of a problem response; fail unless it is well-formed."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["detail"]
    assert "Traceback" not in response.text
    return str(problem["type"]).rpartition(":")[2]


class ServiceProcess:
    """A BentoML service in processes of its own.

    Attributes:
        url: URL of the service.
        process: Its supervisor.
        output: File with its standard output and error.
    """

    def __init__(self, bundle: Path, output: Path, *arguments: str, **env: str) -> None:
        """Start it; ``wait`` until it is ready."""
        port = find_free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.output = output
        command = [sys.executable, "-m", "cv_factory.serving", str(bundle), "--port", str(port)]
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [*command, *arguments],
                cwd=ROOT,
                env={**os.environ, "BENTOML_HOME": str(output.parent / "bentoml"), **env},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it is ready."""
        with PredictionClient(self.url) as client:
            wait_until(lambda: self.process.poll() is not None or client.is_ready(), 300)
        assert self.process.poll() is None, self.output.read_text()

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [c for c in children if "_bentoml_impl.worker.service" in command_line(c)]

    def stop(self) -> None:
        """Stop it with SIGTERM, and check that no process stays."""
        try:
            tree = [psutil.Process(self.process.pid)]
        except psutil.NoSuchProcess:
            return
        tree += tree[0].children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        remaining = psutil.wait_procs(tree, timeout=120)[1]
        for process in remaining:
            process.kill()
        assert remaining == []


class DigitsService(ServiceProcess):
    """A service of the digits that requires an API key.

    Attributes:
        folder: Holds ``bundle``, ``keys.json``, ``log``, ``samples/3/1.png`` and ``output``.
        image: The sample.
        key: An API key with the role ``admin``.
        grpc_address: Host and port of gRPC.
        client_environment: Environment in which curl and ``run.py predict`` send the key.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bundle").mkdir()
        log = {"predictions": str(folder / "log")}
        digits_bundle(has_familiarity=True, limits={"max_body_bytes": 100_000}, log=log).save(
            folder / "bundle"
        )
        self.image = folder / "samples" / "3" / "1.png"
        self.image.parent.mkdir(parents=True)
        self.image.write_bytes(digit_png(3))
        self.key = add_key(folder / "keys.json", "ann", ["admin"], None)
        (folder / ".curlrc").write_text(f'header = "X-API-Key: {self.key}"\n')
        variables = {"CURL_HOME": str(folder), "CV_FACTORY_API_KEY": self.key}
        self.client_environment = {**os.environ, **variables}
        keys = {FILE_VARIABLE: str(folder / "keys.json")}
        grpc_port = find_free_port()
        self.grpc_address = f"127.0.0.1:{grpc_port}"
        super().__init__(
            folder / "bundle", folder / "output", "--grpc-port", str(grpc_port), **keys
        )
