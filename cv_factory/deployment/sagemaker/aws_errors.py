"""Errors of AWS that name action, resource and remedy, made of botocore's exceptions."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cv_factory.errors import CVFactoryError

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

#: Error codes of AWS's services for a missing permission.
_DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "NotAuthorized",
    "403",
)
_BAD_CREDENTIALS = (
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
_OVER_QUOTA = ("LimitExceededException", "ResourceLimitExceeded")
_ACTION = re.compile(r"not authorized to perform: ([\w-]+:\w+)")
_RESOURCE = re.compile(r"on resource: (\S+?)[.,]?(?:\s|$)")


class AwsError(CVFactoryError):
    """AWS refused a call, or could not be reached."""

    exit_code = 2


def aws_error(
    error: "ClientError | BotoCoreError", what: str, *, action: str = "", resource: str = ""
) -> AwsError:
    """Return an error that says why AWS did not do something.

    Args:
        error: What botocore raised.
        what: What failed, the beginning of the message.
        action: The attempted action, for services whose response does not name it.
        resource: The resource of the action, likewise.
    """
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return AwsError(f"{what}: there are no AWS credentials. Run: aws configure sso")
    if not isinstance(error, ClientError):
        return AwsError(f"{what}: {error}")
    detail: Mapping[str, str] = error.response.get("Error", {})
    code, message = detail.get("Code", ""), detail.get("Message", "")
    if code in _BAD_CREDENTIALS:
        return AwsError(
            f"{what}: AWS does not accept the credentials ({code}). Renew them: aws sso login"
        )
    if code in _OVER_QUOTA:
        return AwsError(
            f"{what}: a quota of the account does not suffice: {message} Request an increase in "
            "the AWS console under Service Quotas."
        )
    if code not in _DENIED:
        return AwsError(f"{what}: {error.operation_name} answers {code}: {message}")
    named_action, named_resource = _ACTION.search(message), _RESOURCE.search(message)
    action = named_action[1] if named_action else action or error.operation_name
    resource = named_resource[1] if named_resource else resource or "a resource it does not name"
    return AwsError(
        f"{what}: permission is missing for {action} on {resource}. The account's administrator "
        "must allow it for your role or user; stacks/aws/template.yaml shows what the roles need."
    )
