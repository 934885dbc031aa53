"""Outputs of a CloudFormation stack made from ``stacks/aws/template.yaml``, as variables."""

import re

from cv_factory.errors import StackError, missing_extra

_PREFIX = "CV_FACTORY_"


def stack_outputs(stack: str) -> dict[str, str]:
    """Return a stack's outputs as variables: ``ArtifactBucket`` is ``CV_FACTORY_ARTIFACT_BUCKET``.

    Args:
        stack: Name of the CloudFormation stack, in the region of the caller's AWS configuration.

    Raises:
        StackError: There is no such stack, or it is not complete.
        AwsError: AWS refuses to describe it.
    """
    try:
        import boto3
    except ImportError:
        raise StackError(
            f"Reading a CloudFormation stack needs boto3. {missing_extra('aws')}"
        ) from None
    from botocore.exceptions import BotoCoreError, ClientError

    from cv_factory.deployment.sagemaker.aws_errors import aws_error

    try:
        stack_description = boto3.client("cloudformation").describe_stacks(StackName=stack)[
            "Stacks"
        ][0]
    except ClientError as error:
        if "does not exist" in str(error):
            raise StackError(
                f"There is no CloudFormation stack {stack!r} in this account and region. Make it: "
                "aws cloudformation deploy --template-file stacks/aws/template.yaml "
                f"--stack-name {stack} --capabilities CAPABILITY_NAMED_IAM"
            ) from None
        raise aws_error(error, f"CloudFormation stack {stack!r} cannot be read") from None
    except BotoCoreError as error:
        raise aws_error(error, f"CloudFormation stack {stack!r} cannot be read") from None
    status = str(stack_description["StackStatus"])
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"):
        raise StackError(f"CloudFormation stack {stack!r} is not complete: {status}")
    return {
        variable_name(output["OutputKey"]): str(output["OutputValue"])
        for output in stack_description.get("Outputs", [])
    }


def variable_name(output: str) -> str:
    """Return the name of an output's environment variable."""
    return _PREFIX + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", output).upper()
