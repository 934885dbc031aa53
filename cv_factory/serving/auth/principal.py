"""Who asks, and what for."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["predict", "admin"]


@dataclass(frozen=True)
class Principal:
    """Whoever asks.

    Attributes:
        name: Of the key, or the subject of the token.
        roles: What it may ask for.
        images_per_second: Its own limit, where it has one.
    """

    name: str
    roles: frozenset[str]
    images_per_second: float | None = None

    def may(self, role: Role) -> bool:
        """Whether it has a role; ``admin`` has all."""
        return role in self.roles or "admin" in self.roles


#: Whoever asks a service without keys.
ANYONE = Principal("anyone", frozenset({"predict", "admin"}))
