"""Identity of the person or job behind a command, for the audit log and its permissions."""

from dataclasses import dataclass

import psutil
from zenml.client import Client
from zenml.enums import StoreType

#: Source of the users of this machine.
SYSTEM = "system"


@dataclass(frozen=True)
class Actor:
    """Identity that the system vouches for, whatever ``--by`` says.

    Attributes:
        source: ``zenml server`` (the user who is logged in there) or ``system`` (this machine's).
        name: Name of the user.
    """

    source: str
    name: str

    def __str__(self) -> str:
        """Return name and source for messages."""
        return f"{self.name} ({self.source} user)"


def current_actor() -> Actor:
    """Return the authenticated user of the ZenML server or, without a server, the system's user.

    The system's user is that of the process, not of ``LOGNAME``, which anybody can set.
    """
    client = Client()
    if client.zen_store.type == StoreType.REST:
        return Actor("zenml server", client.active_user.name)
    return Actor(SYSTEM, psutil.Process().username())
