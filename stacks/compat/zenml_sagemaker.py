"""ZenML 0.98.0 and SageMaker: a session that is never made, a wait that ends after 50 minutes."""

import time
from typing import Any

from zenml.integrations.aws.step_operators import SagemakerStepOperator

_UNFINISHED = ("Executing", "Stopping")


class StepOperatorWithSession(SagemakerStepOperator):
    """ZenML's step operator, whose session is read before it is ever written."""

    # Without it every step ends with an AttributeError.
    _sagemaker_session = None


def wait_for_execution(client: Any, arn: str, poll_interval_s: float) -> str:
    """Block until a pipeline execution has ended, and return its status.

    ZenML waits 100 times 30 seconds and reports every failure as a time-out.

    Args:
        client: boto3's client of SageMaker.
        arn: The execution.
        poll_interval_s: Seconds between two calls of SageMaker.
    """
    status = "Executing"
    while status in _UNFINISHED:
        time.sleep(poll_interval_s)
        execution = client.describe_pipeline_execution(PipelineExecutionArn=arn)
        status = str(execution["PipelineExecutionStatus"])
    return status
