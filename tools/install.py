"""Makes .venv and installs what pyproject.toml asks for, at the versions that the lock names.

Runs on a bare Python: standard library only. Does nothing when the last installation still holds.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

VENV = Path(".venv")
STAMP = VENV / "cv-factory-install.json"
SOURCES = (Path("pyproject.toml"), Path("requirements.lock"))
#: Download and space on disk in GB. Measured on Linux (3.0, 6.0), the others worked out from it.
SIZES = {"linux": (3.0, 6.0), "other": (0.4, 2.0), "cpu": (0.5, 2.1)}
UV_REQUIREMENT = "uv>=0.8,<1"
_SECONDS_BETWEEN_LINES = 10.0


class InstallError(Exception):
    """The environment cannot be made; the message says what to do."""


@dataclass(frozen=True)
class Installation:
    """What an installation was made from; it holds as long as this is the same."""

    location: str
    python: str
    sources: str
    torch_backend: str
    extras: tuple[str, ...]

    @classmethod
    def read(cls) -> "Installation | None":
        """Return what was installed last; None where nothing was, or the record is damaged."""
        try:
            content = json.loads(STAMP.read_text(encoding="utf-8"))
            return cls(**{**content, "extras": tuple(content["extras"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self) -> None:
        """Record the installation, atomically, since make may be interrupted at any time."""
        partial = STAMP.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")
        partial.replace(STAMP)


def main() -> int:
    """Install what the command line asks for and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--extra", action="append", default=[], help="an extra of pyproject.toml")
    parser.add_argument(
        "--torch-backend", default="", help="such as cpu; empty keeps what was chosen before"
    )
    arguments = parser.parse_args()
    os.chdir(Path(__file__).resolve().parent.parent)
    try:
        install(tuple(arguments.extra), arguments.torch_backend)
    except InstallError as error:
        sys.stderr.write(f"\nInstallation failed: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted; run the same command again to go on.\n")
        return 130
    return 0


def install(extras: tuple[str, ...], torch_backend: str) -> None:
    """Bring .venv to the state that is asked for; what it already holds is kept.

    Args:
        extras: Extras of pyproject.toml; those that were installed before stay.
        torch_backend: Passed to uv as ``--torch-backend``; empty keeps the former choice.

    Raises:
        InstallError: A tool is missing or failed.
    """
    before = Installation.read()
    wanted = Installation(
        location=str(VENV.resolve()),
        python=_wanted_python(before),
        sources=_digest_of_sources(),
        torch_backend=torch_backend or (before.torch_backend if before else ""),
        extras=tuple(sorted({*extras, *(before.extras if before else ())})),
    )
    if before == wanted and _runs(VENV / "bin" / "python"):
        return
    # Scripts in a moved .venv call the old place, and uv keeps the torch of another backend.
    stale = before and (before.location, before.python, before.torch_backend) != (
        wanted.location,
        wanted.python,
        wanted.torch_backend,
    )
    if stale or not _runs(VENV / "bin" / "python"):
        _remove_venv()
    begun = time.monotonic()
    uv = _make_venv()
    sys.stdout.write(describe_download(wanted.torch_backend, first=not STAMP.exists()))
    sys.stdout.flush()
    _install_with(uv, wanted)
    wanted.write()
    sys.stdout.write(f"Installed in {time.monotonic() - begun:.0f} s.\n")


def describe_download(torch_backend: str, *, first: bool) -> str:
    """Return the lines that say beforehand how much is going to be downloaded."""
    if not first:
        return "Bringing .venv up to date.\n"
    linux = sys.platform == "linux"
    kind = "cpu" if torch_backend == "cpu" else "linux" if linux else "other"
    download, disk = SIZES[kind]
    lines = [
        f"Installing into .venv: about {download:g} GB to download (less what uv has cached), "
        f"{disk:g} GB on disk."
    ]
    if kind == "linux":
        lines.append(
            "  Most of it is PyTorch with CUDA. Without an NVIDIA GPU take the small build, about "
            f"{SIZES['cpu'][0]:g} GB:\n  make setup TORCH_BACKEND=cpu"
        )
    return "\n".join(lines) + "\n"


def _wanted_python(before: Installation | None) -> str:
    """Return the Python of .venv, as ``3.11``: the present one, unless PYTHON names another."""
    if before and not os.environ.get("PYTHON"):
        return before.python
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in SOURCES:
        content = path.read_bytes()
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _runs(program: Path | str) -> bool:
    try:
        return subprocess.run([program, "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


def _remove_venv() -> None:
    if not VENV.exists():
        return
    if not (VENV / "pyvenv.cfg").exists() and any(VENV.iterdir()):
        raise InstallError(f"{VENV} exists and is no virtual environment: move it away.")
    shutil.rmtree(VENV)


def _make_venv() -> list[str]:
    """Make .venv where it is missing and return the command that calls uv."""
    python = str(VENV / "bin" / "python")
    uv = shutil.which("uv")
    if uv and _runs(uv):
        if not _runs(python):
            _call(
                [uv, "venv", "--quiet", "--seed", "--python", sys.executable, str(VENV)],
                "make .venv",
            )
        return [uv]
    if not _runs(python):
        try:
            _call([sys.executable, "-m", "venv", str(VENV)], "make .venv")
        except InstallError as error:
            shutil.rmtree(VENV, ignore_errors=True)
            raise InstallError(
                f"{error}\nPython's venv module is incomplete here: install it "
                "(Debian: apt install python3-venv), or install uv."
            ) from None
    own_uv = VENV / "bin" / "uv"
    if not _runs(own_uv):
        sys.stdout.write("uv is not in PATH: installing it into .venv with pip.\n")
        sys.stdout.flush()
        if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
            _call([python, "-m", "ensurepip", "--upgrade"], "put pip into .venv")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _call([*pip, UV_REQUIREMENT], "install uv with pip")
    return [str(own_uv)]


def _install_with(uv: list[str], wanted: Installation) -> None:
    command = [*uv, "pip", "install", "--python", str(VENV / "bin" / "python")]
    # The lock as constraints, not as requirements: a CPU build must not pull the CUDA packages.
    command += ["-r", "pyproject.toml", "-c", "requirements.lock"]
    command += [word for extra in wanted.extras for word in ("--extra", extra)]
    if wanted.torch_backend:
        command += ["--torch-backend", wanted.torch_backend]
    # uv gives up on a file after 30 s by default, which is short for the 500 MB of torch.
    environment = {"UV_HTTP_TIMEOUT": "300", **os.environ, "NO_COLOR": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stderr is not None
        messages = _follow(process.stderr)
        if process.wait():
            said = "".join(messages[-40:])
            hint = (
                "Python 3.13 needs a C++ compiler for it; 3.12 and 3.11 do not: PYTHON=python3.12\n"
                if "Failed to build" in said and "rapidjson" in said
                else ""
            )
            raise InstallError(f"uv says:\n{said}{hint}")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _follow(output: IO[str]) -> list[str]:
    """Show uv's progress in a few lines and return the messages that are not progress.

    Without a terminal uv writes a line for each of some 170 packages.
    """
    messages: list[str] = []
    sizes: dict[str, float] = {}
    done: set[str] = set()
    last = time.monotonic()
    for line in output:
        if start := re.match(r"\s*Downloading (\S+) \(([\d.]+)\s?([KMG])iB\)", line):
            name, number, unit = start.groups()
            sizes[name] = float(number) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit] / 1e9
        elif end := re.match(r"\s*Downloaded (\S+)", line):
            done.add(end[1])
        elif re.match(r"(Resolved|Prepared|Installed|Checked|Audited) ", line):
            sys.stdout.write(f"  {line}")
        elif not re.match(r"\s[+~-] |\s*(Building|Built|Updating|Updated|Uninstalled) ", line):
            messages.append(line)
        if sizes and done < sizes.keys() and time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            finished = sum(size for name, size in sizes.items() if name in done)
            sys.stdout.write(f"  downloaded {finished:.2f} of {sum(sizes.values()):.2f} GB\n")
        sys.stdout.flush()
    return messages


def _call(command: list[str], purpose: str) -> None:
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode:
        raise InstallError(f"could not {purpose}:\n{result.stdout.strip()}")


if __name__ == "__main__":
    sys.exit(main())
