"""One cloud, and one project in it, for all tests of this folder that ask for them."""

import importlib.util
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from tests.support.cloud import Cloud, CloudProject
    from tests.support.project import Completed


@pytest.fixture(scope="session")
def aws_extra(missing_engine: "Callable[[str], NoReturn]") -> None:
    """Skip where the extra ``aws`` is not installed; fail there in CI."""
    missing = [name for name in ("boto3", "sagemaker") if importlib.util.find_spec(name) is None]
    if missing:
        missing_engine(f"{', '.join(missing)} not installed: make install-engines")


@pytest.fixture(scope="session")
def cloud_with_key(
    aws_extra: None, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[tuple[Cloud, str]]":
    """All servers, and an API key of the ZenML server."""
    from tests.support.cloud import start_cloud

    with start_cloud(tmp_path_factory.mktemp("cloud"), uuid.uuid4().hex) as started:
        yield started


@pytest.fixture(scope="session")
def cloud(cloud_with_key: "tuple[Cloud, str]") -> "Cloud":
    """All servers; no test leaves anything behind that another would trip over."""
    return cloud_with_key[0]


@pytest.fixture(scope="session")
def cloud_project(
    cloud_with_key: "tuple[Cloud, str]", tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[CloudProject]":
    """A project on the cloud; all tests share it and what they register."""
    from tests.support.cloud import CloudProject

    project = CloudProject(tmp_path_factory.mktemp("on-aws"), *cloud_with_key)
    yield project
    project.close()


@pytest.fixture(scope="session")
def applied(cloud: "Cloud", cloud_project: "CloudProject") -> "Completed":
    """Both stacks, applied from the outputs of the template, which is deployed on the emulator."""
    from tests.support.cloud import documented

    cloud.deploy(cloud_project.root)
    variant = documented("python -m stacks apply aws-step-operator ")
    done = cloud_project.stacks("apply", "aws-step-operator", *variant)
    assert "Stack aws-step-operator is ready" in done.stdout
    return cloud_project.stacks("apply", "aws", *documented("python -m stacks apply aws "))


@pytest.fixture(scope="session")
def trained_on_aws(
    cloud: "Cloud", cloud_project: "CloudProject", applied: "Completed"
) -> "tuple[str, dict[str, Any]]":
    """The output of one run on the stack ``aws``, and what ZenML stored of it; it is in staging.

    Its training loses its spot instance.
    """
    from tests.support.cloud import SHORT, documented
    from tests.support.store import snapshot

    arguments = documented("python run.py --pipeline training --stack aws ")
    run = ("--pipeline", "training", "--stack", "aws", *arguments)
    with cloud.going_wrong(interrupted_jobs=("training-train-",)):
        done = cloud_project.run(*run, *SHORT, timeout=900)
    return done.stdout, snapshot(cloud_project)
