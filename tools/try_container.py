"""Builds the container of a bundle and runs it for real, on a Docker engine of its own.

Needs root, Debian's docker.io, runc and debootstrap, and a network for Debian's and Python's
packages; no image is pulled. Prints the image's size, the time from start to ready, and what the
golden samples gave. Run: python -m tools.try_container BUNDLE_DIR
"""

import argparse
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from cv_factory.deployment.bento import build_bento
from cv_factory.deployment.proof import prove
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.guards.keys import add_key
from tools.docker_engine import docker_engine, image_megabytes, make_base, run, wait_until

_PORT = 38473
_URL = f"http://127.0.0.1:{_PORT}"
_BASE, _IMAGE, _NAME = "cv-factory-base", "cv-factory-service", "cv-factory-try"


def main() -> int:
    """Build, run, prove, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    bundle = Bundle.load(parser.parse_args().bundle)
    with tempfile.TemporaryDirectory(prefix="cv-factory-docker-") as directory:
        folder = Path(directory)
        tag = build_bento(bundle, folder / "bento")
        with docker_engine(folder / "engine") as docker:
            make_base(docker, folder / "root", _BASE)
            recipe = str(folder / "bento" / "Containerfile")
            build = [*docker, "build", "--network", "host", "--build-arg", f"BASE={_BASE}"]
            run([*build, "-t", _IMAGE, "-f", recipe, str(folder / "bento")])
            size, base = image_megabytes(docker, _IMAGE), image_megabytes(docker, _BASE)
            key = add_key(folder / "keys.json", "try", ["predict"], None)
            seconds = _start(docker, (folder / "keys.json").read_text(encoding="utf-8"))
            proof = prove(_URL, bundle, timeout=10.0, headers={"X-API-Key": key})
            who = run([*docker, "exec", _NAME, "id", "-un"])
            run([*docker, "stop", "-t", "20", _NAME])
    sys.stdout.write(
        f"{tag}: image {size:.0f} MB (of which base {base:.0f} MB), ready in "
        f"{seconds:.1f} s as user {who}, {proof.n_samples} golden samples answered within "
        f"{proof.largest_difference:.1e}\n"
    )
    return 0


def _start(docker: list[str], keys: str) -> float:
    """Run the container as the Containerfile says and return the seconds until it is ready."""
    begun = time.monotonic()
    serve = ["python3", "-m", "cv_factory.serving", "bundle", "--host", "0.0.0.0"]
    start = [*docker, "run", "-d", "--rm", "--name", _NAME, "--read-only", "--tmpfs", "/tmp"]
    told = ["--network", "host", "-e", f"CV_FACTORY_API_KEYS={keys}"]
    run([*start, *told, _IMAGE, *serve, "--port", str(_PORT)])
    try:
        wait_until(_is_ready)
    except TimeoutError:
        sys.stderr.write(run([*docker, "logs", _NAME]))
        raise
    return time.monotonic() - begun


def _is_ready() -> bool:
    try:
        with urllib.request.urlopen(f"{_URL}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(main())
