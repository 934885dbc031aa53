"""Which services a front hands requests to, and in which shares: a file that the front watches."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cv_factory.artifacts.files import canonical_json, write_atomic
from cv_factory.errors import ArtifactError


@dataclass(frozen=True)
class Backend:
    """A service behind a front: its name, its port on this machine, its share of the requests."""

    name: str
    port: int
    weight: float


@dataclass(frozen=True)
class Routes:
    """Where requests go.

    Attributes:
        generation: Raised with every change, so that one can see which one is in force.
        backends: Those that are given requests.
    """

    generation: int = 0
    backends: tuple[Backend, ...] = ()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomic(path, canonical_json(asdict(self)).encode())

    @classmethod
    def load(cls, path: Path) -> "Routes":
        """Read the file; no backends where there is none.

        Raises:
            ArtifactError: It is damaged.
        """
        try:
            return TypeAdapter(cls).validate_python(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return cls()
        except (ValueError, ValidationError) as error:
            raise ArtifactError(f"{path} is damaged ({error}).") from None


@dataclass(frozen=True)
class FrontStatus:
    """What a front says of itself: the routes in force, and unanswered requests by service."""

    generation: int
    in_flight: Mapping[str, int]

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomic(path, canonical_json(asdict(self)).encode())

    @classmethod
    def load(cls, path: Path) -> "FrontStatus | None":
        """Read the file; None where there is none."""
        try:
            return TypeAdapter(cls).validate_python(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None


class Shares:
    """Picks backends in proportion to their weights, evenly interleaved.

    Smooth weighted round robin, as in nginx: of any N requests in a row, a backend of weight w is
    given N·w, give or take one.
    """

    def __init__(self, backends: Iterable[Backend]) -> None:
        """Start with nobody ahead."""
        self._credit = {backend: 0.0 for backend in backends if backend.weight > 0}

    def pick(self, without: frozenset[str] = frozenset()) -> Backend | None:
        """Return whose turn it is; None where nobody is left."""
        able = [backend for backend in self._credit if backend.name not in without]
        if not able:
            return None
        for backend in able:
            self._credit[backend] += backend.weight
        chosen = max(able, key=lambda backend: self._credit[backend])
        self._credit[chosen] -= sum(backend.weight for backend in able)
        return chosen
