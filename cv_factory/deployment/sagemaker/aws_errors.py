"""Turns what AWS answers into an error that names the action, the resource and what to do.

Knows botocore's exceptions and no service.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cv_factory.errors import CVFactoryError

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

#: Codes by which AWS's services say that the caller may not do it.
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


class AccessError(CVFactoryError):
    """AWS refused a call, or could not be reached."""

    exit_code = 2


def aws_error(
    error: "ClientError | BotoCoreError", what: str, *, action: str = "", resource: str = ""
) -> AccessError:
    """Say why AWS did not do something.

    Args:
        error: What botocore raised.
        what: What did not work, the beginning of a sentence.
        action: The action that was tried, for services whose answer does not name it.
        resource: What it was tried on, likewise.
    """
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return AccessError(f"{what}: there are no AWS credentials. Run: aws configure sso")
    if not isinstance(error, ClientError):
        return AccessError(f"{what}: {error}")
    detail: Mapping[str, str] = error.response.get("Error", {})
    code, message = detail.get("Code", ""), detail.get("Message", "")
    if code in _BAD_CREDENTIALS:
        return AccessError(
            f"{what}: AWS does not accept the credentials ({code}). Renew them: aws sso login"
        )
    if code in _OVER_QUOTA:
        return AccessError(
            f"{what}: a quota of the account does not suffice: {message} More is asked for in the "
            "AWS console under Service Quotas."
        )
    if code not in _DENIED:
        return AccessError(f"{what}: {error.operation_name} answers {code}: {message}")
    named_action, named_resource = _ACTION.search(message), _RESOURCE.search(message)
    action = named_action[1] if named_action else action or error.operation_name
    resource = named_resource[1] if named_resource else resource or "a resource it does not name"
    return AccessError(
        f"{what}: permission is missing for {action} on {resource}. Whoever manages the account "
        "must allow it for the role or user that you are; stacks/aws/template.yaml shows what "
        "the roles need."
    )
