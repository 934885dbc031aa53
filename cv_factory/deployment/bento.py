"""Builder of a Bento: the files of a bundle, the code that serves them, pinned requirements.

The same bundle, code and lock give the same bytes and the same tag, whenever and wherever it is
built: nothing in it depends on time or place. Run: ``python -m cv_factory.deployment.bento
BUNDLE TARGET``.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

import cv_factory
from cv_factory.code_fingerprint import source_files
from cv_factory.deployment.requirements import pin_requirements
from cv_factory.errors import CVFactoryError, print_error
from cv_factory.serving.bundle import Bundle

#: What the code of a service imports; everything else follows from the lock.
REQUIREMENTS = (
    "bentoml",
    "click",
    "grpcio",
    "grpcio-health-checking",
    "grpcio-reflection",
    "httptools",
    "httpx",
    "numpy",
    "onnxruntime",
    "orjson",
    "pillow",
    "prometheus-client",
    "protobuf",
    "psutil",
    "pydantic",
    "pyjwt[crypto]",
    "python-multipart",
    "safetensors",
    "starlette",
    "swagger-ui-bundle-v2",
    "uvicorn",
    "websockets",
)
_ROOT = Path(cv_factory.__file__).resolve().parents[1]
_SERVICE = "cv_factory.serving.service:PredictorService"
_BUILD = """
import sys

import bentoml

context, version = sys.argv[1:]
python = {"requirements_txt": "requirements.txt", "lock_packages": False}
bento = bentoml.bentos.build(
    "SERVICE", name="cv_factory", version=version, build_ctx=context, python=python
)
print("BENTO " + bento.path)
""".replace("SERVICE", _SERVICE)
_CONTAINERFILE = """\
# The service of one bundle. Build: docker build -f Containerfile .
# Run: docker run --read-only --tmpfs /tmp -p 3000:3000 -p 3001:3001 -e CV_FACTORY_API_KEYS IMAGE
ARG BASE=python:3.11-slim
FROM ${BASE}
RUN useradd --create-home --uid 10001 service
COPY env/python/requirements.txt /opt/requirements.txt
# The variable is for Debian's own Python; others do not read it.
RUN PIP_BREAK_SYSTEM_PACKAGES=1 \\
    python3 -m pip install --no-cache-dir --no-deps -r /opt/requirements.txt
COPY --chown=root:root src /opt/service
WORKDIR /opt/service
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 BENTOML_HOME=/tmp/bentoml \\
    BENTOML_DO_NOT_TRACK=true CV_FACTORY_PORT=3000 CV_FACTORY_GRPC_PORT=3001
USER service
EXPOSE 3000 3001
HEALTHCHECK --start-period=30s --interval=10s --timeout=5s CMD ["python3", "-c", \\
    "import os, urllib.request as u; p = os.environ['CV_FACTORY_PORT']; \\
    u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + p + '/readyz', timeout=4)"]
CMD ["python3", "-m", "cv_factory.serving", "bundle", "--host", "0.0.0.0"]
"""


class BentoError(CVFactoryError):
    """A Bento cannot be built."""


def build_bento(bundle: Bundle, target: Path) -> str:
    """Build a Bento with BentoML and return its tag.

    Args:
        bundle: What it serves.
        target: Directory to make; holds ``bento.yaml``, ``src``, ``env`` and a ``Containerfile``.

    Raises:
        BentoError: BentoML refuses.
        RequirementError: A requirement is not in the lock, or not installed.
    """
    with tempfile.TemporaryDirectory(prefix="cv-factory-bento-") as scratch:
        context, home = Path(scratch, "context"), Path(scratch, "home")
        (context / "bundle").mkdir(parents=True)
        home.mkdir()
        bundle.save(context / "bundle")
        _copy_code(context)
        lock = (_ROOT / "requirements.lock").read_text(encoding="utf-8")
        (context / "requirements.txt").write_text(
            pin_requirements(REQUIREMENTS, lock), encoding="utf-8"
        )
        version = f"{bundle.version}-{_digest(context)[:16]}"
        built = _run_bentoml(context, home, version)
        shutil.copytree(built, target)
    _replace_creation_time(target, bundle.created)
    (target / "Containerfile").write_text(_CONTAINERFILE, encoding="utf-8")
    return f"cv_factory:{version}"


def _copy_code(context: Path) -> None:
    """Copy the modules that serving imports, and the pages beside them."""
    served = _ROOT / "cv_factory" / "serving"
    modules = [
        ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(served.rglob("*.py"))
    ]
    pages = [
        path.relative_to(_ROOT).as_posix()
        for path in served.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    for name in ("cv_factory/__init__.py", *source_files(*modules), *pages):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOT / name, context / name)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _run_bentoml(context: Path, home: Path, version: str) -> Path:
    """Run BentoML in a process of its own, which imports the copied code and no other."""
    environment = {
        **os.environ,
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "true",
        "PYTHONPATH": str(context),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    completed = subprocess.run(
        [sys.executable, "-c", _BUILD, str(context), version],
        cwd=context,
        env=environment,
        capture_output=True,
        text=True,
    )
    paths = [
        line.removeprefix("BENTO ")
        for line in completed.stdout.splitlines()
        if line.startswith("BENTO ")
    ]
    if completed.returncode or not paths:
        raise BentoError(f"BentoML could not build the Bento:\n{completed.stderr[-2000:]}")
    return Path(paths[0])


def _replace_creation_time(bento: Path, created: str) -> None:
    """Write into ``bento.yaml`` when the version was made, not when the Bento was."""
    file = bento / "bento.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    replaced = [
        f"creation_time: '{created}'" if line.startswith("creation_time:") else line
        for line in lines
    ]
    file.write_text("\n".join(replaced) + "\n", encoding="utf-8")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("target", type=click.Path(path_type=Path, exists=False))
def main(bundle: Path, target: Path) -> None:
    """Build a Bento of a BUNDLE directory at TARGET."""
    try:
        click.echo(build_bento(Bundle.load(bundle), target))
    except Exception as error:  # noqa: BLE001 (a fault of the program is raised again)
        sys.exit(print_error(error))


if __name__ == "__main__":
    main()
