"""Stubs IAM's refusals: an action that a test names is refused, in the words that AWS uses."""

from pathlib import Path
from typing import Any

from controls import Controls
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse

_CALLER = "arn:aws:iam::123456789012:user/tester"


class _Refused(ServiceException):
    code = "AccessDeniedException"


def install(folder: Path) -> None:
    """Refuse what the folder's controls name."""
    call_action = BaseResponse.call_action

    def call_or_refuse(response: BaseResponse) -> Any:
        action = f"{response.service_name}:{response._get_action()}"
        if action in Controls.read(folder).refused_actions:
            refused = _Refused(
                f"User: {_CALLER} is not authorized to perform: {action} on resource: "
                f"arn:aws:{response.service_name}:eu-central-1:123456789012:* because no "
                "identity-based policy allows the action"
            )
            return response.serialized(ActionResult(refused))
        return call_action(response)

    BaseResponse.call_action = call_or_refuse
