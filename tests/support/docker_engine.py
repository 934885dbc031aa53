"""A Docker engine of our own, for trying images: started by hand, on a Debian that is not pulled.

Needs root, Debian's docker.io, runc and debootstrap, and a network for Debian's packages.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.waiting import wait_until

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_STOP_SECONDS = 60.0


@contextlib.contextmanager
def docker_engine(folder: Path) -> Iterator[list[str]]:
    """Start a Docker engine without a bridge and yield the command that talks to it."""
    folder.mkdir()
    address = f"unix://{folder}/docker.sock"
    command = ["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/run"]
    command += ["-H", address, "-p", f"{folder}/pid", "--bridge=none", "--iptables=false"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    docker = ["env", "DOCKER_BUILDKIT=0", "docker", "-H", address]
    try:
        wait_until(
            lambda: subprocess.run([*docker, "info"], capture_output=True).returncode == 0, 60
        )
        yield docker
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        unmount_below(folder)


def unmount_below(folder: Path) -> None:
    """Undo what is mounted in a folder: an engine leaves its network namespace mounted.

    What cannot be undone is said on standard error, so that an error that came before is not lost.
    """
    # Of two mounts the later one may lie in the earlier one.
    for line in reversed(Path("/proc/mounts").read_text(encoding="utf-8").splitlines()):
        if (place := line.split()[1]).startswith(f"{folder}/"):
            subprocess.run(["umount", place], check=False)


def make_base(docker: list[str], root: Path, name: str) -> None:
    """Import a Debian with Python as an image, since none can be pulled.

    Like Docker's own images of Python it has ``python`` and lets pip install for the whole system.

    Args:
        docker: The command that talks to the engine.
        root: A folder that is made, and takes some 400 MB.
        name: What the image is called.
    """
    packages = "python3,python3-pip"
    run(["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)])
    target = root / _CERTIFICATES.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_CERTIFICATES, target)
    (root / "usr" / "bin" / "python").symlink_to("python3")
    for mark in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        mark.unlink()
    archive = root.with_suffix(".tar")
    run(["tar", "-C", str(root), "-cf", str(archive), "."])
    trusted = f"ENV PIP_CERT={_CERTIFICATES} SSL_CERT_FILE={_CERTIFICATES}"
    run([*docker, "import", "--change", trusted, str(archive), name])
    archive.unlink()
    shutil.rmtree(root)


def image_bytes(docker: list[str], image: str) -> int:
    """Return the size of an image."""
    return int(run([*docker, "image", "inspect", "-f", "{{.Size}}", image]))


def run(command: list[str]) -> str:
    """Run a command and return what it printed.

    Raises:
        RuntimeError: It failed; the message holds the end of what it printed.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} failed:\n{done.stdout}{done.stderr}"[-4000:])
    return done.stdout.strip()
