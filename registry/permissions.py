"""Who may approve, promote and override, by the policy in the audit log."""

from collections.abc import Mapping
from typing import Any

from cv_factory.errors import CVFactoryError
from registry.actor import Actor
from registry.audit.log import AuditEntry
from registry.audit.state import LoggedVersion, Policy


class TransitionRefusedError(CVFactoryError):
    """A version may not be moved to the stage, or not by this user."""

    exit_code = 3


def require_approver(policy: Policy, actor: Actor, who: str | None, action: str) -> None:
    """Refuse the action of a user who is no approver, or acts under another name.

    Raises:
        TransitionRefusedError: The policy does not let the authenticated user do it.
    """
    if policy.approvers and actor.name not in policy.approvers:
        raise TransitionRefusedError(
            f"You are {actor}, and may not {action}: approvers are "
            f"{', '.join(policy.approvers)} (register.approvers, as the audit log holds it). One "
            "of them can give the command, or change the policy by a training run."
        )
    if policy.restricts_people and who not in (None, actor.name):
        raise TransitionRefusedError(
            f"You are {actor}, and --by names {who}: this model's policy needs the authenticated "
            "user. Leave --by out."
        )


def require_other_than_author(
    policy: Policy, actor: Actor, version: LoggedVersion, number: int, action: str
) -> None:
    """Refuse that the author of a version approves or overrides, where the policy says so.

    Raises:
        TransitionRefusedError: The user trained it, or the log does not say who did.
    """
    if not policy.separate_approver:
        return
    if version.author is None:
        raise TransitionRefusedError(
            f"Version {number} was registered by a release that did not log who trained it, and "
            f"register.separate_approver needs to know before you {action} it. Train it again."
        )
    if version.author["name"] == actor.name:
        raise TransitionRefusedError(
            f"You are {actor} and trained version {number}: somebody else must {action} it "
            "(register.separate_approver)."
        )


def is_permitted(policy: Policy, entry: AuditEntry, version: LoggedVersion) -> bool:
    """Return whether a policy lets the user behind an entry decide about a version."""
    identity = entry.detail.get("identity", {})
    if policy.approvers and identity.get("name") not in policy.approvers:
        return False
    return not (policy.separate_approver and _is_author(identity, version))


def _is_author(identity: Mapping[str, Any], version: LoggedVersion) -> bool:
    """Return whether a version was trained by this user, or its author is unknown."""
    return version.author is None or version.author["name"] == identity.get("name")
