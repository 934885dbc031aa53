"""The command lines of docs/serving.md work as they stand there."""

import re
import subprocess
import sys

import pytest

from cv_factory.config.serving import ServingConfig
from cv_factory.serving.openapi import build_openapi
from tests.support.digits_service import DigitsService, digits_bundle
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
URL, GRPC = "http://127.0.0.1:3000", "127.0.0.1:3001"


def command_lines(word: str) -> list[str]:
    """Return the shell lines of the page that contain a word."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if word in line]


def run(line: str, service: DigitsService) -> str:
    """Run a shell line of the page in a folder that has the files it names."""
    done = subprocess.run(
        ["bash", "-ec", line.replace("python ", f"{sys.executable} ", 1)],
        cwd=service.folder,
        env={**service.client_environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_curl(service: DigitsService) -> None:
    lines = command_lines("curl")
    assert len(lines) == 6
    for line in lines:
        expected = '{"accepted":1}' if "/feedback" in line else "digits"
        assert expected in run(line.replace(URL, service.url), service), line


def test_tritons_client(service: DigitsService) -> None:
    over_http, over_grpc = (
        f"python - <<'END'\n{code.replace('KEY', service.key, 1)}\nEND"
        for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        if "triton" in code
    )
    over_http = over_http.replace(URL.removeprefix("http://"), service.url.removeprefix("http://"))
    over_grpc = over_grpc.replace(GRPC, service.grpc_address)
    assert run(over_http, service).startswith("[b'8'] [[")
    assert run(over_grpc, service).splitlines() == ["[b'8']", "[b'8']"]


def test_the_client(service: DigitsService) -> None:
    predict, give_label = (
        re.sub("api_key=[^)]+", f"api_key={service.key!r}", code.replace(URL, service.url))
        for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        if "PredictionClient" in code
    )
    assert run(f"python - <<'END'\n{predict}\nEND", service).startswith("8 {'8': ")
    run(f"python - <<'END'\n{give_label}\nEND", service)


def test_run_py_predicts_alike_over_http_and_grpc_and_with_the_bundle(
    service: DigitsService,
) -> None:
    (service.folder / "run.py").write_bytes((ROOT / "run.py").read_bytes())
    over_http, over_grpc, with_bundle = (
        run(line.replace(URL, service.url).replace(GRPC, service.grpc_address), service)
        for line in command_lines("run.py predict")
    )
    assert "digits" in over_http
    assert over_http.split()[1:6] == over_grpc.split()[1:6] == with_bundle.split()[1:6]


def test_websocket(service: DigitsService) -> None:
    [code] = [c for c in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "websockets" in c]
    code = code.replace(URL.replace("http", "ws"), service.url.replace("http", "ws"))
    code = code.replace('"KEY"', repr(service.key))
    output = subprocess.check_output([sys.executable, "-c", code], cwd=service.folder, text=True)
    assert output.splitlines()[0] == "{'window': 8}"
    assert re.fullmatch(r"camera-17 \d", output.splitlines()[1])


def test_keys(service: DigitsService) -> None:
    add, list_, revoke = (
        line.replace("keys.json", "documented_keys.json")
        for line in command_lines("cv_factory.serving.auth")
    )
    key = run(add, service).strip()
    assert key.startswith("cvf_")
    assert key not in (service.folder / "documented_keys.json").read_text()
    assert run(list_, service).split() == ["ann", "valid", "predict", "50", "images/s"]
    run(revoke, service)
    assert "revoked" in run(list_, service)


def test_every_setting_and_route_is_documented() -> None:
    for name in build_openapi(digits_bundle(), is_open=True)["paths"]:
        assert name in PAGE, name
    for section, field in ServingConfig.model_fields.items():
        inner = getattr(field.annotation, "model_fields", {})
        for key in [section, *inner]:
            assert key in PAGE, f"{section}.{key}"
