"""docs/aws.md, walked to its end: what other tests leave out runs here, and nothing is forgotten.

Comes last in this folder, since it tears down what the others use.
"""

import pytest

from tests.support.cloud import SHORT, Cloud, CloudProject, asked_for, documented, page_commands
from tests.support.store import cached_steps, snapshot

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1200)]

#: What cannot run here, and why.
_NOT_RUN = {
    "make setup EXTRAS=aws": "installs what make test-engines has installed",
    "zenml login https://zenml.example.com": "asks in a browser; a key stands for it",
    "export CV_FACTORY_MLFLOW_USERNAME=... CV_FACTORY_MLFLOW_PASSWORD=...": "set by the fixture",
}


@pytest.mark.usefixtures("applied", "trained_on_aws")
def test_every_documented_command_works(cloud: Cloud, cloud_project: CloudProject) -> None:
    checked = cloud_project.stacks("check", *documented("python -m stacks check "))
    assert "declares it." in checked.stdout
    # The stack is the active one since it was applied; what has run there is not run again.
    cached = SHORT[:-1]
    for command in ("training", "training --stack aws-step-operator"):
        words = _asked(f"python run.py --pipeline {command}")
        cloud_project.run(*words[2:], *cached, timeout=900)
        assert cached_steps(snapshot(cloud_project)) >= {"ingest", "train", "export"}
    _tear_down(cloud, cloud_project)
    assert asked_for | set(_NOT_RUN) == set(page_commands())
    assert cloud.attempts == "", "nothing tried to reach another machine"


def _tear_down(cloud: Cloud, project: CloudProject) -> None:
    project.stacks("apply", "local")
    commands = page_commands()
    for command in commands[commands.index("zenml stack set local") :]:
        program, *words = _asked(command)
        if program == "zenml":
            project.zenml(*words)
        elif words[:3] == ["cloudformation", "delete-stack", "--stack-name"]:
            cloud.aws("cloudformation").delete_stack(StackName=words[3])
        else:
            assert words == ["s3", "rb", "s3://BUCKET", "--force"]
            cloud.remove_bucket()
    assert "aws" not in project.zenml("stack", "list").stdout
    assert not cloud.aws("iam").list_roles()["Roles"]
    assert not cloud.s3.client().list_buckets()["Buckets"]


def _asked(command: str) -> list[str]:
    """Return the words of a command that stands just so in the page."""
    assert command in page_commands()
    asked_for.add(command)
    return command.split()
