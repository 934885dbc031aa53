"""Stubs refusals by IAM and by quotas: of actions that a test names, in the words that AWS uses."""

from pathlib import Path
from typing import Any

from controls import Controls
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse

_CALLER = "arn:aws:iam::123456789012:user/tester"
_QUOTA = (
    "The account-level service limit 'ml.m5.large for endpoint usage' is 0 Instances, with current "
    "utilization of 0 Instances and a request delta of 1 Instances."
)


class _Refused(ServiceException):
    code = "AccessDeniedException"


class _OverQuota(ServiceException):
    code = "ResourceLimitExceeded"


def install(folder: Path) -> None:
    """Refuse what the folder's controls name."""
    call_action = BaseResponse.call_action

    def call_or_refuse(response: BaseResponse) -> Any:
        action = f"{response.service_name}:{response._get_action()}"
        controls = Controls.read(folder)
        if action in controls.over_quota:
            return response.serialized(ActionResult(_OverQuota(_QUOTA)))
        if action in controls.refused_actions:
            refused = _Refused(
                f"User: {_CALLER} is not authorized to perform: {action} on resource: "
                f"arn:aws:{response.service_name}:eu-central-1:123456789012:* because no "
                "identity-based policy allows the action"
            )
            return response.serialized(ActionResult(refused))
        return call_action(response)

    BaseResponse.call_action = call_or_refuse
