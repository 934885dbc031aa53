"""What a user sees when a part of AWS refuses, fails or is not there."""

import re

import pytest

from cv_factory.config.data import DataConfig
from cv_factory.data.ingest import ingest
from tests.support.cloud import Cloud, CloudProject, documented
from tests.support.fault_proxy import FaultProxy
from tests.support.images import write_class_folders
from tests.support.project import Completed
from tests.support.store import snapshot

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("applied")]

_CHECK = ("check", "aws", *documented("python -m stacks check aws "))
_VALIDATION = ("--pipeline", "validation", "--no-cache")


def test_applying_again_changes_nothing_and_the_check_finds_nothing(
    cloud: Cloud, cloud_project: CloudProject, applied: Completed
) -> None:
    assert "mlflow-password" not in applied.stdout + applied.stderr
    again = cloud_project.stacks("apply", "aws", *documented("python -m stacks apply aws "))
    assert "nothing had to be changed" in again.stdout
    before = cloud.objects()
    checked = cloud_project.stacks(*_CHECK)
    assert checked.stdout.strip().endswith("declares it.")
    assert cloud.objects() == before


def test_the_check_names_what_is_missing_and_what_to_do(cloud_project: CloudProject) -> None:
    missing = cloud_project.stacks(
        *_CHECK, code=2,
        CV_FACTORY_ARTIFACT_BUCKET="no-bucket",
        CV_FACTORY_ECR_REPOSITORY="no-repository",
        CV_FACTORY_SERVICE_REPOSITORY="no-service",
        CV_FACTORY_CODEBUILD_PROJECT="no-project",
        CV_FACTORY_SAGEMAKER_ROLE_ARN="arn:aws:iam::123456789012:role/cv-factory-codebuild",
        CV_FACTORY_MLFLOW_URI="http://127.0.0.1:9",
    ).stdout  # fmt: skip
    for phrase in (
        "artifact_store cv_factory_s3: there is no bucket no-bucket",
        "container_registry cv_factory_ecr: there is no repository no-repository",
        "model_deployer cv_factory_endpoints: there is no repository no-service",
        "image_builder cv_factory_codebuild: there is no build project no-project",
        "SageMaker may not assume the role cv-factory-codebuild",
        "MLflow at 127.0.0.1:9 does not answer",
    ):
        assert phrase in missing
    assert "docs/aws.md" in missing


def test_the_check_names_permissions_that_are_missing(
    cloud: Cloud, cloud_project: CloudProject
) -> None:
    # The S3 server itself refuses its reader; what moto lets pass, the emulator's stub refuses.
    refused = ("ecr:DescribeRepositories", "iam:GetRole", "codebuild:BatchGetProjects")
    with cloud.going_wrong(refused_actions=refused):
        check = cloud_project.stacks(
            *_CHECK, code=2,
            AWS_ACCESS_KEY_ID="reader", AWS_SECRET_ACCESS_KEY="readers-secret",
        ).stdout  # fmt: skip
    key = f"arn:aws:s3:::{cloud.bucket}/zenml/.cv-factory-check"
    assert f"permission is missing for s3:PutObject on {key}" in check
    for action in refused:
        assert f"permission is missing for {action} on arn:aws:{action.split(':')[0]}:" in check
    assert not cloud.objects("zenml/.cv-factory-check")


def test_a_run_that_may_not_be_submitted_names_action_and_resource(
    cloud: Cloud, cloud_project: CloudProject
) -> None:
    with cloud.going_wrong(refused_actions=("sagemaker:CreatePipeline",)):
        refused = cloud_project.run(*_VALIDATION, "--stack", "aws", code=2)
    assert "permission is missing for sagemaker:CreatePipeline on arn:aws:sagemaker" in (
        refused.stderr
    )
    assert "Traceback" not in refused.stderr


def test_a_build_that_fails_shows_the_end_of_its_log(
    cloud: Cloud, cloud_project: CloudProject
) -> None:
    lock = cloud_project.root / "requirements.lock"
    content = lock.read_text()
    lock.write_text(f"{content}not-a-package==1.0\n")  # another image than that of other tests
    log = ("Step 4/9 : RUN uv pip install", "No solution found: not-a-package was not found")
    try:
        with cloud.going_wrong(failing_build_log=log):
            failed = cloud_project.run(*_VALIDATION, "--stack", "aws", code=1)
    finally:
        lock.write_text(content)
    assert "The end of its log:" in failed.stderr
    assert log[1] in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_unreachable_server_is_reported_before_any_upload(
    cloud: Cloud, cloud_project: CloudProject
) -> None:
    before = cloud.objects()
    command = (*_VALIDATION, "--stack", "aws")
    refused = cloud_project.run(*command, code=2, ZENML_STORE_URL="http://127.0.0.1:9")
    assert "The ZenML server at http://127.0.0.1:9 does not answer" in refused.stderr
    assert cloud.objects() == before


def test_a_failing_step_is_reported_with_its_message(cloud_project: CloudProject) -> None:
    pets = cloud_project.home / "pets"
    write_class_folders(pets, per_class=2)
    (pets / "disc" / "broken.png").write_bytes(b"not an image")
    source = ("--set", "data.source=folder", "--set", f"data.path={pets}")
    failed = cloud_project.run(*_VALIDATION, *source, "--stack", "aws", code=1)
    assert re.search(r"Step 'ingest': .*DataError.*broken\.png", failed.stderr, re.DOTALL)
    assert "Traceback" not in failed.stderr


def test_random_s3_failures_corrupt_no_artifact(cloud: Cloud, cloud_project: CloudProject) -> None:
    with FaultProxy(cloud.s3.url, share=0.15, seed=7) as proxy:
        cloud_project.run(
            *_VALIDATION, "--stack", "aws-step-operator", AWS_ENDPOINT_URL_S3=proxy.url
        )
    assert sum(proxy.faults.values()) >= 5, (proxy.served, proxy.faults)
    run_content = cloud_project.python(_LOAD_ALL).stdout
    assert f"DATASET {ingest(DataConfig()).fingerprint}" in run_content
    assert "LOADED data_report, dataset, split" in run_content


def test_an_unreachable_s3_ends_the_run_with_one_message(cloud_project: CloudProject) -> None:
    command = (*_VALIDATION, "--stack", "aws-step-operator")
    failed = cloud_project.run(*command, code=1, AWS_ENDPOINT_URL_S3="http://127.0.0.1:9")
    assert "The run failed: Could not connect to the endpoint URL" in failed.stderr
    assert "Traceback" not in failed.stderr
    run_content = snapshot(cloud_project)
    assert run_content["status"] == "failed"
    assert not run_content["steps"]["ingest"]["outputs"], "no artifact that is not there"


# Loading verifies checksums.
_LOAD_ALL = """
from zenml.client import Client

client = Client()
run = client.list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True).items[0]
outputs = {name: found[0] for step in run.steps.values() for name, found in step.outputs.items()}
loaded = {name: version.load() for name, version in outputs.items()}
print("LOADED", ", ".join(sorted(loaded)))
print("DATASET", loaded["dataset"].fingerprint)
"""
