"""Principal: the authenticated client of a request."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["predict", "feedback", "admin"]


@dataclass(frozen=True)
class Principal:
    """Authenticated client.

    Attributes:
        name: Name of the API key, or subject of the token.
        roles: Granted roles.
        images_per_second: Rate limit in place of ``rate.per_key``, if it has one.
    """

    name: str
    roles: frozenset[str]
    images_per_second: float | None = None

    def has_role(self, role: Role) -> bool:
        """Whether a role is granted; ``admin`` includes all others."""
        return role in self.roles or "admin" in self.roles


#: Every client of a service without access control.
ANONYMOUS = Principal("anyone", frozenset({"predict", "feedback", "admin"}))
