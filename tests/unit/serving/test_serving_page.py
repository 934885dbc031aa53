"""The command lines of docs/serving.md work as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.digits_service import ROOT, Service, digit, digits_bundle

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
PORT = "http://127.0.0.1:3000"


def lines_with(word: str) -> list[str]:
    """Return the shell lines of the page that hold a word."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if word in line]


def run(line: str, folder: Path) -> str:
    """Run a shell line of the page in a folder that has what it names."""
    done = subprocess.run(
        ["bash", "-ec", line.replace("python ", f"{sys.executable} ", 1)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page")
    (made / "bundle").mkdir()
    digits_bundle().save(made / "bundle")
    (made / "digit.png").write_bytes(digit())
    (made / "run.py").write_bytes((ROOT / "run.py").read_bytes())
    return made


def test_asking(folder: Path) -> None:
    service = Service(folder / "bundle", folder / "output")
    try:
        service.wait()
        asking = [*lines_with("curl"), *lines_with("run.py predict")]
        assert len(asking) == 5
        for line in asking:
            assert "digits" in run(line.replace(PORT, service.url), folder), line
    finally:
        service.stop()


def test_keys(folder: Path) -> None:
    add, show, revoke = lines_with("cv_factory.serving.auth")
    key = run(add, folder).strip()
    assert key.startswith("cvf_")
    assert key not in (folder / "keys.json").read_text()
    assert run(show, folder).split() == ["ann", "valid", "predict", "50", "images/s"]
    run(revoke, folder)
    assert "revoked" in run(show, folder)


def test_every_setting_and_route_is_on_the_page() -> None:
    from cv_factory.config.serving import ServingConfig
    from cv_factory.serving.openapi import describe

    for name in describe(digits_bundle(), is_open=True)["paths"]:
        assert name in PAGE, name
    for section, field in ServingConfig.model_fields.items():
        inner = getattr(field.annotation, "model_fields", {})
        for key in [section, *inner]:
            assert key in PAGE, f"{section}.{key}"
