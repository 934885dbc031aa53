"""The SageMaker SDK 2 recommends version 3 at its import, which ZenML 0.98.0 cannot use."""

import os

from cv_factory.deployment.sagemaker.aws_calls import quiet_aws_logs


def silence_sdk() -> None:
    """Keep the SDK, before it is imported, from printing that recommendation and its settings."""
    os.environ.setdefault("SAGEMAKER_SUPPRESS_V2_WARNING", "1")
    quiet_aws_logs()
