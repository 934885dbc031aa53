"""Builds the image that steps run in for real, and runs the pipeline's steps in it.

On a Docker engine of its own, with a Debian in place of the parent image, since none can be pulled;
all else is what ZenML would have CodeBuild build. Needs root, Debian's docker.io, runc and
debootstrap, a network for Debian's and Python's packages, and some 25 GB of disk. Prints sizes and
times. The code is that of the last commit. Run: python -m tests.support.try_step_image
"""

import sys
import tempfile
import time
from pathlib import Path

from stacks.images import step_image
from tests.support.docker_engine import docker_engine, image_bytes, make_base, run
from tests.support.paths import ROOT as _ROOT

_IMAGE = "cv-factory-steps"
#: In the image's own working directory, as ZenML unpacks the code of a run there.
_TRAIN = (
    "exec 2>&1; id -u && cp -r /code/. . && python -m stacks apply local --set && "
    "python run.py --pipeline training --preset smoke"
)


def main() -> int:
    """Build, run, and leave nothing behind."""
    parent = step_image().parent_image
    assert parent is not None
    with tempfile.TemporaryDirectory(prefix="cv-factory-docker-") as directory:
        folder = Path(directory)
        with docker_engine(folder / "engine") as docker:
            make_base(docker, folder / "root", parent)
            write_context(folder / "context")
            start_time = time.monotonic()
            build = [*docker, "build", "--network", "host", "-t", _IMAGE]
            run([*build, str(folder / "context")])
            built = time.monotonic() - start_time
            size, base = image_bytes(docker, _IMAGE), image_bytes(docker, parent)
            sys.stdout.write(
                f"built in {built:.0f} s: {size / 1e6:.0f} MB (of which base {base / 1e6:.0f} MB)\n"
            )
            start_time = time.monotonic()
            output = _run_steps(docker, folder / "code")
            seconds, user = time.monotonic() - start_time, output.splitlines()[0]
            sys.stdout.write(f"{output[-2000:]}\nthe steps ran as user {user} in {seconds:.0f} s\n")
    return 0


def write_context(folder: Path) -> None:
    """Write what ZenML sends to the image builder: the Dockerfile and the requirements."""
    from zenml.utils.pipeline_docker_image_builder import PipelineDockerImageBuilder

    settings = step_image()
    requirements = "\n".join(settings.requirements or ())
    name = ".zenml_user_requirements"
    dockerfile = PipelineDockerImageBuilder._generate_zenml_pipeline_dockerfile(
        parent_image=str(settings.parent_image),
        docker_settings=settings,
        requirements_files=[(name, requirements, [])],
        apt_packages=settings.apt_packages,
    )
    folder.mkdir()
    (folder / name).write_text(requirements, encoding="utf-8")
    (folder / "Dockerfile").write_text(dockerfile, encoding="utf-8")


def _run_steps(docker: list[str], code: Path) -> str:
    """Run the training pipeline in a container of the image and return its output."""
    code.mkdir()
    archive = str(code.with_suffix(".tar"))
    run(["git", "-C", str(_ROOT), "archive", "-o", archive, "HEAD"])
    run(["tar", "-x", "-C", str(code), "-f", archive])
    start = [*docker, "run", "--rm", "--network", "host", "-v", f"{code}:/code:ro"]
    return run([*start, _IMAGE, "sh", "-c", _TRAIN])


if __name__ == "__main__":
    sys.exit(main())
