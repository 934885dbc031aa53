"""The cures of ZenML's bugs are still needed; a test that fails here says which to remove."""

import inspect

import pytest

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("aws_extra")]


def test_zenmls_step_operator_still_reads_a_session_that_it_never_made() -> None:
    from zenml.integrations.aws.step_operators import SagemakerStepOperator

    from stacks.flavors.sagemaker_jobs import SizedStepOperator

    assert not hasattr(SagemakerStepOperator, "_sagemaker_session"), "remove the cure"
    assert SizedStepOperator._sagemaker_session is None


def test_zenmls_image_builder_still_forbids_what_a_docker_daemon_needs() -> None:
    from zenml.integrations.aws.image_builders import AWSImageBuilder

    source = inspect.getsource(AWSImageBuilder.build)
    assert "privilegedModeOverride=False" in source, "remove stacks.flavors.codebuild's hook"
