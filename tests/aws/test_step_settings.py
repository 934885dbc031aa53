"""What a step may not set for itself: refused before its job is submitted."""

import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from zenml.config.step_configurations import StepConfiguration
from zenml.config.step_run_info import StepRunInfo
from zenml.enums import StackComponentType

from cv_factory.errors import StackError
from stacks.flavors.sagemaker_config import SizedStepOperatorConfig

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("aws_extra")]


@pytest.mark.parametrize(
    ("checkpoints", "settings", "message"),
    [
        ("", {"spot": True}, "step 'train' .*: spot: "),
        (
            "s3://bucket/checkpoints",
            {"estimator_args": {"checkpoint_s3_uri": "s3://bucket/my-data"}},
            r"step 'train' .*: estimator_args\.checkpoint_s3_uri: ",
        ),
    ],
)
def test_a_steps_own_settings_that_would_cost_or_lose_something_are_refused(
    checkpoints: str, settings: dict[str, Any], message: str
) -> None:
    from stacks.flavors.sagemaker_jobs import SizedStepOperator

    now, nobody = datetime.now(UTC), uuid.uuid4()
    operator = SizedStepOperator(
        name="gpu", id=nobody, flavor="sagemaker_sized", type=StackComponentType.STEP_OPERATOR,
        user=nobody, created=now, updated=now,
        config=SizedStepOperatorConfig.model_validate(
            {"role": "arn:role", "checkpoints": checkpoints,
             "instances": [{"name": "ml.m5.xlarge", "cpus": 4, "memory_gib": 16}]}
        ),
    )  # fmt: skip
    own = {"step_operator.sagemaker_sized": settings}
    config = StepConfiguration.model_validate({"name": "train", "settings": own})
    # ZenML looks at the class of what it reads settings from.
    run_info: Any = StepRunInfo
    info = run_info.model_construct(config=config, step_run=SimpleNamespace(cache_key="key"))
    with pytest.raises(StackError, match=message):
        operator.submit(info, ["true"], {})
