"""The unchanged training pipeline on the emulated stack ``aws``, its variant, and ``local``.

On ``aws`` the training loses its spot instance, on the variant its job dies and is started again.
"""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.cloud import SHORT, Cloud, CloudProject, documented
from tests.support.store import snapshot

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1200)]

_STEPS = {"ingest", "split", "validate_data", "fit_transform", "train", "export", "evaluate",
          "build_reference", "register"}  # fmt: skip


def test_the_pipeline_runs_to_a_registered_model(
    cloud: Cloud, trained_on_aws: tuple[str, dict[str, Any]]
) -> None:
    output, content = trained_on_aws
    assert "digits version 1" in output
    assert content["status"] == "completed"
    assert set(content["steps"]) == _STEPS
    for step in content["steps"].values():
        for artifact in step["outputs"].values():
            address = urlsplit(artifact["uri"])
            assert (address.scheme, address.netloc) == ("s3", cloud.bucket)
            assert cloud.objects(address.path.lstrip("/"))
    assert cloud.objects("mlflow/"), "MLflow keeps its artifacts there, too"
    ran = {name.split("-", 1)[1] for name in cloud.job_logs if "-" in name}
    assert ran >= _STEPS


def test_every_step_runs_on_the_instance_that_it_fits_on(
    cloud: Cloud, trained_on_aws: tuple[str, dict[str, Any]]
) -> None:
    sagemaker = cloud.aws("sagemaker")
    (job,) = sagemaker.list_training_jobs()["TrainingJobSummaries"]
    trained = sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"])
    assert trained["ResourceConfig"]["InstanceType"] == "ml.g4dn.xlarge"
    assert trained["StoppingCondition"]["MaxRuntimeInSeconds"] == 14400
    assert trained["StoppingCondition"]["MaxWaitTimeInSeconds"] == 28800
    assert trained["EnableManagedSpotTraining"]
    pipelines = sagemaker.list_pipelines(PipelineNamePrefix="training")
    (pipeline,) = pipelines["PipelineSummaries"]
    defined = sagemaker.describe_pipeline(PipelineName=pipeline["PipelineName"])
    definition = json.loads(defined["PipelineDefinition"])
    for step in definition["Steps"]:
        arguments = step["Arguments"]
        assert arguments["ResourceConfig"]["InstanceType"] == "ml.t3.xlarge"
        assert "KeepAlivePeriodInSeconds" not in arguments["ResourceConfig"], "it costs"
        assert {"Key": "project", "Value": "cv-factory"} in arguments["Tags"]
        image = arguments["AlgorithmSpecification"]["TrainingImage"]
        assert image.startswith("123456789012.dkr.ecr.eu-central-1.amazonaws.com/cv-factory-steps")


def test_a_training_that_loses_its_instance_continues_and_leaves_no_checkpoints(
    cloud: Cloud, trained_on_aws: tuple[str, dict[str, Any]]
) -> None:
    (log,) = [log for name, log in cloud.job_logs.items() if name.startswith("training-train-")]
    first, second = log.split("Training on ")[1:]
    assert _epochs(first)[0] == 1
    assert _epochs(first)[-1] < 8, "it was killed in the middle"
    assert _epochs(second)[0] > 1
    assert _epochs(second)[-1] == 8
    assert not cloud.objects("checkpoints/")


def test_every_stack_gives_the_same_predictor_bytes(
    cloud: Cloud, cloud_project: CloudProject, trained_on_aws: tuple[str, dict[str, Any]]
) -> None:
    def predictor(content: dict[str, Any]) -> str:
        uri: str = content["steps"]["export"]["outputs"]["predictor"]["uri"]
        return uri

    on_aws = _files_of(cloud, predictor(trained_on_aws[1]))
    before = set(cloud.job_logs)
    variant = documented("python run.py --pipeline training --stack aws-step-operator")
    training = ("--pipeline", "training", *SHORT)
    on_variant = (*training, "--stack", "aws-step-operator", *variant)
    with cloud.going_wrong(dying_jobs=("training-train-",)):
        died = cloud_project.run(*on_variant, code=1)
    (job,) = set(cloud.job_logs) - before
    assert job.startswith("training-train-"), "train alone runs on SageMaker"
    assert f"The job {job} of step 'train' ended as Failed" in died.stderr
    assert "continues from its last checkpoint" in died.stderr
    assert "Traceback" not in died.stderr
    cloud_project.run(*on_variant)
    (again,) = set(cloud.job_logs) - before - {job}
    assert _epochs(cloud.job_logs[again])[0] > 1
    assert _files_of(cloud, predictor(snapshot(cloud_project))) == on_aws

    cloud_project.stacks("apply", "local")
    cloud_project.run(*training, "--stack", "local")
    folder = predictor(snapshot(cloud_project))
    listing = cloud_project.command(["find", folder, "-type", "f"]).stdout.split()
    here = {name.rsplit("/", 1)[1]: Path(name).read_bytes() for name in listing}
    assert {name: here[name] for name in on_aws} == on_aws
    assert cloud.attempts == "", "nothing tried to reach another machine"


def _epochs(log: str) -> list[int]:
    """Return the numbers of the epochs that a job has finished, as its log shows them."""
    return [int(number) for number in re.findall(r"epoch +(\d+)/8", log)]


def _files_of(cloud: Cloud, uri: str) -> dict[str, bytes]:
    keys = cloud.objects(urlsplit(uri).path.lstrip("/"))
    files = {key.rsplit("/", 1)[1]: cloud.read(key) for key in keys}
    return {name: files[name] for name in ("predictor.onnx", "contract.json", "golden.npz")}
