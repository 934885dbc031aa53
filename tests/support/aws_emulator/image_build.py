"""Builds an image for real, as CodeBuild would, where a Docker engine is at hand.

Of the commands of a build specification those are run that build and tag. There is no registry:
nothing is pushed, and no other image can be pulled than the engine can reach.
"""

import io
import os
import shlex
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from typing import Any

import boto3
import yaml

_RUN = (["docker", "build"], ["docker", "tag"])
_NOT_PUSHED = "The image was built on this machine's Docker engine and NOT pushed: no registry."
_SECONDS_OF_PATIENCE = 20.0


def engine_is_at_hand() -> bool:
    """Whether the engine that DOCKER_HOST names answers."""
    if not os.environ.get("DOCKER_HOST"):
        return False
    try:
        probe = subprocess.run(["docker", "version"], capture_output=True, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0


class ImageBuild:
    """A build that runs in a thread.

    Attributes:
        lines: Its log so far.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        """Start it, from the request that CodeBuild was sent."""
        self.lines: list[str] = []
        self._has_failed = False
        self._bucket, _, self._key = request["sourceLocationOverride"].partition("/")
        self._specification = yaml.safe_load(request["buildspecOverride"])
        self._thread = threading.Thread(target=self._build, daemon=True)
        self._thread.start()

    def status(self) -> str:
        """Return CodeBuild's word for how far it is, after waiting a while for its end."""
        self._thread.join(_SECONDS_OF_PATIENCE)
        if self._thread.is_alive():
            return "IN_PROGRESS"
        return "FAILED" if self._has_failed else "SUCCEEDED"

    def _build(self) -> None:
        store = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"])
        content = store.get_object(Bucket=self._bucket, Key=self._key)["Body"].read()
        with tempfile.TemporaryDirectory() as folder:
            zipfile.ZipFile(io.BytesIO(content)).extractall(folder)
            for phase in self._specification["phases"].values():
                for command in filter(_is_run, phase["commands"] or []):
                    if not self._run(shlex.split(command), folder):
                        self._has_failed = True
                        return
        self.lines.append(_NOT_PUSHED)

    def _run(self, command: list[str], folder: str) -> bool:
        """Run a command, add what it prints to the log, and say whether it succeeded."""
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines += [" ".join(command), *done.stdout.splitlines()]
        return done.returncode == 0


def _is_run(command: str) -> bool:
    return command.split()[:2] in _RUN
