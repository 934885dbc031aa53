"""The client package as its users have it: installed by pip, alone; through the proxy, by TLS."""

import subprocess
import sys
from pathlib import Path

import pytest

from cv_factory.deployment.local.proxy_process import ProxyProcess
from cv_factory.deployment.local.routes import Backend, Routes
from cv_factory.deployment.traffic import TlsFiles
from cv_factory.processes.ports import LOOPBACK, find_free_port
from cv_factory_client import PredictionClient, RetryPolicy, ServiceError
from tests.support.certificates import CertificateAuthority
from tests.support.digits_service import DigitsService, digit_png
from tests.support.paths import ROOT

pytestmark = pytest.mark.engines

_PREDICT = """
import asyncio, importlib.metadata, sys
from pathlib import Path
from cv_factory_client import AsyncPredictionClient, PredictionClient

*urls, image, key = sys.argv[1:]
content = Path(image).read_bytes()

async def predict(url):
    async with AsyncPredictionClient(url, key) as client:
        return (await client.predict(content)).label

for url in urls:
    with PredictionClient(url, key) as client:
        print(client.is_ready(), client.predict(content).label, asyncio.run(predict(url)))
installed = {distribution.name.lower() for distribution in importlib.metadata.distributions()}
print(sorted(installed & {"numpy", "torch", "zenml", "bentoml", "pydantic", "grpcio", "httpx"}))
"""


def test_pip_installs_it_and_it_predicts_over_http_and_grpc(
    service: DigitsService, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    package = f"{ROOT / 'cv_factory_client'}[grpc]"
    subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True)
    urls = [service.url, f"grpc://{service.grpc_address}"]
    command = [python, "-I", "-c", _PREDICT, *urls, str(service.image), service.key]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["True 8 8", "True 8 8", "['grpcio', 'httpx']"], done.stderr


def test_it_reaches_a_service_through_the_proxy_and_knows_when_none_is_there(
    service: DigitsService, tmp_path: Path
) -> None:
    authority = CertificateAuthority(tmp_path)
    tls = TlsFiles(*authority.issue())
    ports = [int(url.rpartition(":")[2]) for url in (service.url, service.grpc_address)]
    backend = Backend("one", ports[0], 1.0, grpc_port=ports[1])
    proxy = ProxyProcess(tmp_path / "proxy", f"{tmp_path}#front", LOOPBACK, find_free_port())
    clients = [
        PredictionClient(
            f"{scheme}://{LOOPBACK}:{proxy.port}",
            service.key,
            ca=authority.file,
            retries=RetryPolicy(attempts=1),
        )
        for scheme in ("https", "grpcs")
    ]
    try:
        proxy.set_routes(Routes(backends=(backend,), tls=tls), drain_timeout_s=20)
        images = [digit_png(n) for n in range(20)]
        over_http, over_grpc = (list(client.predict_many(images)) for client in clients)
        assert [p.probabilities for p in over_http] == [p.probabilities for p in over_grpc]
        proxy.set_routes(Routes(backends=(), tls=tls), drain_timeout_s=20)
        for client in clients:
            with client, pytest.raises(ServiceError, match=r"\(503\): No service is run") as caught:
                client.predict(images[0])
            assert (caught.value.is_retryable, caught.value.retry_after) == (True, 1)
    finally:
        proxy.remove(drain_timeout_s=20)
