"""The unchanged training pipeline on the emulated stack ``aws`` and its variants."""

from pathlib import Path

import pytest
from cloud import Cloud, CloudProject

pytestmark = pytest.mark.engines


def test_x(cloud: Cloud, cloud_project: CloudProject) -> None:
    template = Path("stacks/aws/template.yaml").read_text()
    cloud.aws("cloudformation").create_stack(
        StackName="cv-factory", TemplateBody=template, Capabilities=["CAPABILITY_NAMED_IAM"]
    )
    print(cloud.aws("cloudformation").describe_stacks(StackName="cv-factory"))
    print(cloud_project.command(["bash", "-c", f"env > {cloud.folder}/env; ls"]))
    done = cloud_project.stacks("apply", "aws", "--from-cloudformation", "cv-factory")
    print(done.stdout, done.stderr)
    import time
    b = time.monotonic()
    try:
        done = cloud_project.run("--pipeline", "training", "--stack", "aws", "--set", "model.name=logistic_regression")
        print(done.stdout, done.stderr)
    finally:
        print("took", time.monotonic() - b)
        for k, v in cloud.job_logs.items():
            print("=====", k, v[-3000:])
        print(cloud.attempts)
        print(cloud.folder)
        print(cloud.objects())
