"""Which instance a step gets on SageMaker, and with which network and key."""

import re

import botocore.session
import pytest
from pydantic import ValidationError
from zenml.config import ResourceSettings

from cv_factory.errors import StackError
from stacks.flavors.sagemaker_config import (
    SizedJobs,
    SizedStepOperatorConfig,
    SizedStepOperatorSettings,
)
from stacks.spec import read_spec
from tests.support.paths import ROOT

_STACKS = ROOT / "stacks"
_JOBS = SizedJobs.model_validate(
    {
        "instances": [
            {"name": "ml.t3.medium", "cpus": 2, "memory_gib": 4},
            {"name": "ml.m5.xlarge", "cpus": 4, "memory_gib": 16},
            {"name": "ml.g4dn.xlarge", "cpus": 4, "memory_gib": 16, "gpus": 1, "local_disk": True},
        ]
    }
)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "ml.t3.medium"),
        ({"cpu_count": 2, "memory": "4GiB"}, "ml.t3.medium"),
        ({"cpu_count": 3}, "ml.m5.xlarge"),
        ({"memory": "5GB"}, "ml.m5.xlarge"),
        ({"gpu_count": 1}, "ml.g4dn.xlarge"),
    ],
)
def test_a_step_gets_the_first_instance_that_has_what_it_asks_for(
    asked: dict[str, object], expected: str
) -> None:
    assert _JOBS.select_instance(ResourceSettings(**asked), "train").name == expected


def test_a_step_that_fits_on_none_is_told_so() -> None:
    with pytest.raises(StackError, match=r"Step 'train' asks for gpu_count 2, which none of") as e:
        _JOBS.select_instance(ResourceSettings(gpu_count=2), "train")
    assert "ml.t3.medium, ml.m5.xlarge, ml.g4dn.xlarge" in str(e.value)
    assert "zenml.resources" in str(e.value)


def test_network_and_key_reach_every_job_and_no_disk_that_takes_no_key() -> None:
    private = _JOBS.model_copy(
        update={"subnets": "subnet-1, subnet-2", "security_groups": "sg-1", "kms_key": "arn:key"}
    )
    small, _, gpu = private.instances
    assert private.job_arguments(small) == {
        "instance_type": "ml.t3.medium",
        "subnets": ["subnet-1", "subnet-2"],
        "security_group_ids": ["sg-1"],
        "output_kms_key": "arn:key",
        "volume_kms_key": "arn:key",
    }
    assert "volume_kms_key" not in private.job_arguments(gpu)
    assert _JOBS.job_arguments(gpu) == {"instance_type": "ml.g4dn.xlarge"}


def test_spot_and_checkpoints_reach_the_job() -> None:
    config = _step_operator(spot=True, spot_wait=600, estimator_args={"max_run": 3600})
    kept = {
        "checkpoint_s3_uri": "s3://b/checkpoints/train/key",
        "checkpoint_local_path": "/opt/ml/checkpoints",
    }
    spot = {"use_spot_instances": True, "max_wait": 4200}
    assert config.checkpoint_arguments("train/key", config) == {**kept, **spot}
    patient = _step_operator()
    assert patient.checkpoint_arguments("train/key", patient) == kept
    forgetful = _step_operator(checkpoints="")
    assert forgetful.checkpoint_arguments("train/key", forgetful) == {}


def test_spot_without_checkpoints_is_refused() -> None:
    with pytest.raises(ValidationError, match="spot: an interrupted job continues from"):
        _step_operator(spot=True, checkpoints="")


def test_a_steps_own_spot_without_checkpoints_is_refused() -> None:
    forgetful = _step_operator(checkpoints="")
    forgetful.check_settings(SizedStepOperatorSettings(), "train")
    with pytest.raises(StackError, match=r"step 'train' .*: spot: .* say where, under checkpoints"):
        forgetful.check_settings(SizedStepOperatorSettings(spot=True), "train")
    _step_operator().check_settings(SizedStepOperatorSettings(spot=True), "train")


def test_nobody_else_says_where_checkpoints_lie_for_they_are_removed() -> None:
    elsewhere = {"estimator_args": {"max_run": 60, "checkpoint_s3_uri": "s3://b/my-data"}}
    with pytest.raises(ValidationError, match=r"estimator_args\.checkpoint_s3_uri: the stack says"):
        _step_operator(**elsewhere)
    config = _step_operator()
    with pytest.raises(StackError, match=r"step 'train' .*estimator_args\.checkpoint_s3_uri"):
        config.check_settings(SizedStepOperatorSettings(**elsewhere), "train")
    assert config.is_checkpoint_uri("s3://b/checkpoints/train/key")
    assert not config.is_checkpoint_uri("s3://b/checkpoints-of-others/train/key")
    assert not config.is_checkpoint_uri("s3://b/my-data")
    assert not _step_operator(checkpoints="").is_checkpoint_uri("s3://b/my-data")


def _step_operator(**settings: object) -> SizedStepOperatorConfig:
    always = {"role": "arn:role", "checkpoints": "s3://b/checkpoints/", **_JOBS.model_dump()}
    return SizedStepOperatorConfig(**{**always, **settings})


def test_subnets_without_security_groups_are_refused() -> None:
    with pytest.raises(ValidationError, match="give both or neither"):
        SizedJobs.model_validate({**_JOBS.model_dump(), "subnets": "subnet-1"})


@pytest.mark.parametrize("kind", ["orchestrator", "step_operator"])
def test_the_stack_file_names_instances_that_sagemaker_has(kind: str) -> None:
    asked = (_STACKS / "aws.env.example").read_text(encoding="utf-8").split("# Optional")[0]
    names = re.findall(r"^export (\w+)=", asked, re.MULTILINE)
    spec = read_spec("aws", environment=dict.fromkeys(names, "x"))
    jobs = SizedJobs.model_validate({"instances": spec.components[kind].configuration["instances"]})
    api = botocore.session.get_session().get_service_model("sagemaker")
    known = api.shape_for("TrainingInstanceType").enum
    assert {instance.name for instance in jobs.instances} <= set(known)
