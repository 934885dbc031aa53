"""Whether the approvers of a policy exist: with none that does, nobody could change it again."""

import pwd

from zenml.client import Client
from zenml.utils.pagination_utils import depaginate

from cv_factory.config.register import RegisterConfig
from cv_factory.config.suggestion import nearest
from cv_factory.errors import ConfigError
from registry.actor import SYSTEM, Actor, current_actor
from registry.model_registry import ModelRegistry


def check_approvers(config: RegisterConfig) -> str:
    """Check that each approver who is new to the model's policy is a user.

    Returns:
        A warning where the new policy takes from the acting person the right to change it; else
        empty.

    Raises:
        ConfigError: Names who is no user: once a policy has approvers, they alone change it.
    """
    if not config.approvers:
        return ""
    present = ModelRegistry(config.model_name).log.state().policy.approvers
    new = [name for name in config.approvers if name not in present]
    actor = current_actor()
    for name in new:
        if not _is_user(name, actor):
            near = nearest(name, _list_users(actor))
            raise ConfigError(
                f"register.approvers: there is no {actor.source} user {name!r}. "
                + (f"Did you mean {near!r}? " if near else "")
                + "Once a policy has approvers, they alone can change it."
            )
    if not new or actor.name in config.approvers or (present and actor.name not in present):
        return ""
    return (
        f"register.approvers does not name you, {actor}: after this run, "
        f"{', '.join(config.approvers)} alone can change the policy."
    )


def _is_user(name: str, actor: Actor) -> bool:
    """Whether a user exists; True where that cannot be seen."""
    if actor.source != SYSTEM:
        # A server shows other users to its administrators alone.
        return not Client().active_user.is_admin or name in _list_users(actor)
    try:
        pwd.getpwnam(name)
    except KeyError:
        return name == actor.name
    return True


def _list_users(actor: Actor) -> list[str]:
    """Return the users of the ZenML server, or those of the system that can be listed."""
    if actor.source == SYSTEM:
        return [actor.name, *(user.pw_name for user in pwd.getpwall())]
    return [user.name for user in depaginate(Client().list_users)]
