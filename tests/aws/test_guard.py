"""What keeps these tests on this machine."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.cloud import EMULATOR

_REACH = "import urllib.request; urllib.request.urlopen('http://example.invalid', timeout=5)"


def test_another_machine_is_refused_and_written_down(tmp_path: Path) -> None:
    log = tmp_path / "attempts.log"
    command = [sys.executable, str(EMULATOR / "guarded.py"), "-c", _REACH]
    environment = {"PATH": os.environ["PATH"], "CV_FACTORY_TEST_ATTEMPTS": str(log)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "example.invalid: only this machine may be reached" in done.stderr
    assert log.read_text().startswith("socket.getaddrinfo example.invalid by")


def test_requests_that_aws_would_refuse_are_found(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CHECK]
    violations = subprocess.run(
        command, cwd=EMULATOR, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert violations == [
        "CreateTrainingJobRequest.Environment.LONG: 513 is more than 512",
        "CreateTrainingJobRequest.ResourceConfig.InstanceType: 'ml.t3.tiny' is no "
        "TrainingInstanceType",
        "CreateTrainingJobRequest.TrainingJobName: 'with_underscore' does not match "
        "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}",
        "CreateTrainingJobRequest: there is no Imagined",
    ]


_CHECK = """
from api_limits import violations

print("\\n".join(sorted(violations("sagemaker", "CreateTrainingJobRequest", {
    "TrainingJobName": "with_underscore",
    "Environment": {"LONG": "x" * 513, "RUN": {"Get": "Execution.PipelineExecutionArn"}},
    "ResourceConfig": {"InstanceType": "ml.t3.tiny"},
    "Imagined": 1,
}))))
"""
