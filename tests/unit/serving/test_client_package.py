"""The client package as a user of a service installs it: with pip, alone, in an environment."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.digits_service import DigitsService
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
