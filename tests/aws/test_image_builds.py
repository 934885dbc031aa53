"""CodeBuild builds for real where a Docker engine is at hand; the project's own commands ask it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from tests.support.cloud import Cloud, CloudProject
from tests.support.docker_engine import docker_engine

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("applied")]


@pytest.fixture
def docker(
    cloud: Cloud, engine: Callable[..., str], missing_engine: Callable[[str], NoReturn]
) -> Iterator[list[str]]:
    """A Docker engine that the emulator finds; the command that talks to it."""
    engine("dockerd")
    if os.geteuid() != 0:
        missing_engine("only root can start a Docker engine")
    with docker_engine(cloud.engine_folder) as command:
        yield command


def test_an_image_is_built_and_a_failing_build_shows_the_end_of_its_log(
    docker: list[str], cloud_project: CloudProject
) -> None:
    built = _build(cloud_project, "FROM scratch\nCOPY greeting /greeting\n")
    (line,) = [line for line in built.splitlines() if line.startswith("BUILT")]
    image = line.removeprefix("BUILT ")
    container = subprocess.run([*docker, "create", image, "x"], capture_output=True, check=True)
    content = subprocess.run(
        [*docker, "cp", f"{container.stdout.decode().strip()}:/greeting", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert b"hello from the context" in content
    failed = _build(cloud_project, "FROM scratch\nCOPY not-there /\n")
    assert "ImageBuildError" in failed
    assert "The end of its log:" in failed
    assert "not-there" in failed.split("The end of its log:")[1]


def test_without_an_engine_a_build_says_that_nothing_was_built(
    cloud: Cloud, cloud_project: CloudProject
) -> None:
    assert "BUILT" in _build(cloud_project, "FROM scratch\n")
    logs, group = cloud.aws("logs"), "/aws/codebuild/cv-factory-images"
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    newest = max(streams, key=lambda stream: stream["creationTime"])["logStreamName"]
    (event,) = logs.get_log_events(logGroupName=group, logStreamName=newest)["events"]
    assert event["message"].endswith("the image was NOT built.")


def _build(project: CloudProject, dockerfile: str) -> str:
    """Build with the stack's image builder and return all that was printed."""
    done = project.command([sys.executable, "-c", _BUILD, dockerfile])
    return done.stdout + done.stderr


_BUILD = """
import sys

from stacks.compat.zenml_active_stack import use_stack

use_stack("aws")

from zenml.client import Client
from zenml.image_builders.build_context import BuildContext

from stacks.flavors.codebuild import ImageBuildError

stack, context = Client().active_stack, BuildContext()
context.add_file(sys.argv[1], "Dockerfile")
context.add_file("hello from the context", "greeting")
name = f"{stack.container_registry.config.uri}/cv-factory-steps:try"
try:
    built = stack.image_builder.build(name, context, container_registry=stack.container_registry)
    print("BUILT", built)
except ImageBuildError as error:
    print("ImageBuildError", error)
"""
