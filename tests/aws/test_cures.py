"""The cures of ZenML's bugs are still needed; a test that fails here says which to remove."""

import inspect
import uuid
from datetime import UTC, datetime

import pytest
from zenml.enums import StackComponentType

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("aws_extra")]


def test_zenmls_step_operator_still_reads_a_session_that_it_never_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sagemaker.session import Session
    from zenml.integrations.aws.flavors.sagemaker_step_operator_flavor import (
        SagemakerStepOperatorConfig,
    )
    from zenml.integrations.aws.step_operators import SagemakerStepOperator

    from stacks.flavors.sagemaker_jobs import SizedStepOperator

    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    now, nobody = datetime.now(UTC), uuid.uuid4()
    stock, cured = (
        kind(
            name="gpu", id=nobody, config=SagemakerStepOperatorConfig(role="role"),
            flavor="sagemaker", type=StackComponentType.STEP_OPERATOR, user=nobody, created=now,
            updated=now,
        )
        for kind in (SagemakerStepOperator, SizedStepOperator)
    )  # fmt: skip
    with pytest.raises(AttributeError, match="_sagemaker_session"):
        stock.sagemaker_session  # noqa: B018  (passes here: remove the cure)
    assert isinstance(cured.sagemaker_session, Session)


def test_zenmls_image_builder_still_forbids_what_a_docker_daemon_needs() -> None:
    from zenml.integrations.aws.image_builders import AWSImageBuilder

    source = inspect.getsource(AWSImageBuilder.build)
    assert "privilegedModeOverride=False" in source, "remove stacks.flavors.codebuild's hook"
