"""The wheel of the client, alone in an environment of its own."""

import importlib.metadata
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

from cv_factory.deployment.requirements import dependency_closure
from tests.support.paths import ROOT

_BUILD = "import hatchling.build as b, sys; print(b.build_wheel(sys.argv[1]))"
_USE = """
import sys
from cv_factory_client import PredictionClient, RetryPolicy, ServiceError

with PredictionClient("http://127.0.0.1:9", retries=RetryPolicy(attempts=1)) as client:
    try:
        client.predict(b"")
    except ServiceError as error:
        print(error)
print(sorted({"cv_factory", "numpy", "torch", "zenml", "pydantic"} & set(sys.modules)))
"""


def build_wheel(folder: Path) -> Path:
    """Build the wheel as pip does."""
    command = [sys.executable, "-c", _BUILD, str(folder)]
    done = subprocess.run(command, cwd=ROOT / "cv_factory_client", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def link_distribution(name: str, site_packages: Path) -> None:
    """Put an installed distribution into another environment."""
    distribution = importlib.metadata.distribution(name)
    tops = {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
    for top in tops:
        (site_packages / top).symlink_to(str(distribution.locate_file(top)))


def test_the_wheel_needs_what_it_names_and_nothing_of_the_project(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    venv.create(tmp_path / "venv", symlinks=True)
    [site_packages] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)
    [distribution] = importlib.metadata.distributions(
        name="cv-factory-client", path=[str(site_packages)]
    )
    files = {p.name for p in (ROOT / "cv_factory_client").iterdir() if p.is_file()}
    shipped = {f.name for f in distribution.files or [] if f.parts[0] == "cv_factory_client"}
    assert shipped == files - {"README.md", "pyproject.toml"}
    required = map(Requirement, distribution.requires or [])
    base = [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert base == ["httpx"]
    for name in dependency_closure(base):
        link_distribution(name, site_packages)
    done = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "python"), "-I", "-c", _USE],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "http://127.0.0.1:9 cannot be reached: Connection refused",
        "[]",
    ], done.stderr
