"""A running service that test modules of one worker share."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cv_factory.serving.auth.api_keys import FILE_VARIABLE, add_key
from tests.support.digits_service import ServiceProcess, digit_png, digits_bundle


@dataclass(frozen=True)
class RunningService:
    """A service of the digits that requires an API key.

    Attributes:
        folder: Holds ``bundle``, ``keys.json`` and ``digit.png``.
        key: An API key with the role ``admin``.
        process: The service's processes.
    """

    folder: Path
    key: str
    process: ServiceProcess

    @property
    def url(self) -> str:
        """URL of the service."""
        return self.process.url

    @property
    def client_environment(self) -> dict[str, str]:
        """Environment in which curl and ``run.py predict`` send the key."""
        return {**os.environ, "CURL_HOME": str(self.folder), "CV_FACTORY_API_KEY": self.key}


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "bundle").mkdir()
    digits_bundle(limits={"max_body_bytes": 100_000}).save(folder / "bundle")
    key = add_key(folder / "keys.json", "ann", ["admin"], None)
    (folder / ".curlrc").write_text(f'header = "X-API-Key: {key}"\n')
    (folder / "digit.png").write_bytes(digit_png())
    variables = {FILE_VARIABLE: str(folder / "keys.json")}
    process = ServiceProcess(folder / "bundle", folder / "output", **variables)
    try:
        process.wait()
        yield RunningService(folder, key, process)
    finally:
        process.stop()
