"""Builds the container of a bundle and runs it for real, on a Docker engine of its own.

Needs root, Debian's docker.io, containerd, runc and debootstrap, and a network for Debian's and
Python's packages; no image is pulled. Prints the image's size, the time from start to ready, and
what the golden samples gave. Run: python -m tests.support.try_container BUNDLE_DIR
"""

import argparse
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from cv_factory.data.encode import encode_png
from cv_factory.deployment.bento import build_bento
from cv_factory.deployment.verify import VerificationResult, verify_golden_samples
from cv_factory.serving.auth.api_keys import add_key
from cv_factory.serving.bundle import Bundle
from cv_factory_client import PredictionClient
from tests.support.docker_engine import docker_engine, image_bytes, make_base, run
from tests.support.waiting import wait_until

_PORT = 38473
_GRPC_PORT = 38474
_URL = f"http://127.0.0.1:{_PORT}"
_BASE, _IMAGE, _NAME = "cv-factory-base", "cv-factory-service", "cv-factory-try"


@dataclass(frozen=True)
class Trial:
    """What was seen of a container.

    Attributes:
        tag: Of the Bento.
        image_bytes: Size of its image.
        base_bytes: Of the Debian and Python below it.
        ready_seconds: From its start until it was ready.
        verification: What the golden samples gave, over HTTP and with a key.
        user: Who runs in it.
        health: What the engine says of its health check.
        refused: What writing to its root directory was answered with.
        exit_code: Of its server, when the engine asked it to stop.
        seconds: That each part took, by name.
    """

    tag: str
    image_bytes: int
    base_bytes: int
    ready_seconds: float
    verification: VerificationResult
    user: str
    health: str
    refused: str
    exit_code: int
    seconds: dict[str, float]


def main() -> int:
    """Build, run, prove, print, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    with tempfile.TemporaryDirectory(prefix="cv-factory-docker-") as directory:
        trial = try_container(Bundle.load(parser.parse_args().bundle), Path(directory))
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in trial.seconds.items())
    sys.stdout.write(
        f"{trial.tag}: image {trial.image_bytes / 1e6:.0f} MB (of which base "
        f"{trial.base_bytes / 1e6:.0f} MB), ready in {trial.ready_seconds:.1f} s as user "
        f"{trial.user}, {trial.health}, {trial.verification.n_samples} golden samples within "
        f"{trial.verification.largest_difference:.1e}\n{took}\n"
    )
    return 0


def try_container(bundle: Bundle, folder: Path) -> Trial:
    """Build the image of a bundle, run it read-only, prove it, and stop it.

    Args:
        bundle: What it serves.
        folder: An empty folder for everything that is made; a socket lies in it, so that its path
            must be short.

    Raises:
        RuntimeError: A command failed; the message has its output.
        CVFactoryError: The container does not answer as the bundle's predictor.
    """
    clock = _Clock()
    tag = build_bento(bundle, folder / "bento")
    with docker_engine(folder / "engine") as docker:
        make_base(docker, folder / "root", _BASE)
        clock.note("base")
        recipe = str(folder / "bento" / "Containerfile")
        build = [*docker, "build", "--network", "host", "--build-arg", f"BASE={_BASE}"]
        run([*build, "-t", _IMAGE, "-f", recipe, str(folder / "bento")])
        image, base = image_bytes(docker, _IMAGE), image_bytes(docker, _BASE)
        clock.note("image")
        key = add_key(folder / "keys.json", "try", ["predict"], None)
        seconds = _start(docker, (folder / "keys.json").read_text(encoding="utf-8"))
        verification = verify_golden_samples(_URL, bundle, timeout=10.0, headers={"X-API-Key": key})
        with PredictionClient(f"grpc://127.0.0.1:{_GRPC_PORT}", key) as client:
            client.predict(encode_png(bundle.predictor.golden.images[0]))
        user = run([*docker, "exec", _NAME, "id", "-un"])
        written = [*docker, "exec", "-u", "root", _NAME, "touch", "/written"]
        refused = subprocess.run(written, capture_output=True, text=True).stderr.strip()
        health = _health(docker)
        run([*docker, "stop", "-t", "20", _NAME])
        code = int(run([*docker, "inspect", "-f", "{{.State.ExitCode}}", _NAME]))
        clock.note("run")
    return Trial(
        tag, image, base, seconds, verification, user, health, refused, code, clock.seconds
    )


class _Clock:
    """Notes how long each part took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def note(self, name: str) -> None:
        """A part ended, and the next begins."""
        now = time.monotonic()
        self.seconds[name], self._since = now - self._since, now


def _start(docker: list[str], keys: str) -> float:
    """Run the container as the Containerfile says and return the seconds until it is ready."""
    start_time = time.monotonic()
    start = [*docker, "run", "-d", "--name", _NAME, "--read-only", "--tmpfs", "/tmp"]
    variables = {
        "CV_FACTORY_PORT": _PORT,
        "CV_FACTORY_GRPC_PORT": _GRPC_PORT,
        "CV_FACTORY_API_KEYS": keys,
    }
    options = [part for name, value in variables.items() for part in ("-e", f"{name}={value}")]
    # Its health is asked for sooner than in service: nobody waits for it here otherwise.
    run([*start, "--network", "host", "--health-interval=1s", *options, _IMAGE])
    try:
        wait_until(_is_ready, 60)
    except TimeoutError:
        sys.stderr.write(run([*docker, "logs", _NAME]))
        raise
    return time.monotonic() - start_time


def _health(docker: list[str]) -> str:
    """Return what the engine finds, once it has asked."""

    def state() -> str:
        return run([*docker, "inspect", "-f", "{{.State.Health.Status}}", _NAME])

    wait_until(lambda: state() != "starting", 60)
    return state()


def _is_ready() -> bool:
    try:
        with urllib.request.urlopen(f"{_URL}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(main())
