"""Routes of a proxy: the services behind it and what each is given, in a file; a pipe wakes it."""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cv_factory.artifacts.files import canonical_json, write_atomic
from cv_factory.deployment.traffic import Arm, Sticky, TlsFiles
from cv_factory.errors import ArtifactError

ROUTES, STATUS = "routes.json", "status.json"
_WAKE_PIPE = "wake"


@dataclass(frozen=True)
class Backend:
    """A service behind a proxy.

    Attributes:
        name: Of the service, unique in its endpoint.
        port: For HTTP, on this machine.
        weight: Its part of the requests, relative to the others'; 0 for a shadow.
        grpc_port: For gRPC, on this machine; None where it serves none.
        version: Number of its version, as text; a label of its metrics.
        arm: Its part in a rollout; a label of its metrics.
        mirror_share: Fraction of all requests that it is given copies of; 0 unless it is a shadow.
    """

    name: str
    port: int
    weight: float
    grpc_port: int | None = None
    version: str = ""
    arm: Arm = "stable"
    mirror_share: float = 0.0


@dataclass(frozen=True)
class Routes:
    """The services that requests go to, and how clients reach them.

    Attributes:
        generation: Incremented with every change, so that the routes in force can be identified.
        backends: Those that are given requests or copies.
        sticky: How a client stays with a version; None where each request is distributed.
        tls: None for plain text.
    """

    generation: int = 0
    backends: tuple[Backend, ...] = ()
    sticky: Sticky | None = None
    tls: TlsFiles | None = None

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        body = TypeAdapter(type(self)).dump_python(self, mode="json")
        write_atomic(path, canonical_json(body).encode())

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
class ProxyStatus:
    """Status of a proxy: the generation in force, and unanswered requests by service."""

    generation: int
    in_flight: Mapping[str, int]

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomic(path, canonical_json(asdict(self)).encode())

    @classmethod
    def load(cls, path: Path) -> "ProxyStatus | None":
        """Read the file; None where there is none."""
        try:
            return TypeAdapter(cls).validate_python(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None


def open_wake_pipe(folder: Path) -> FileIO:
    """Open the pipe that a proxy is woken through; reading it does not wait."""
    path = folder / _WAKE_PIPE
    with suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    return FileIO(os.open(path, os.O_RDWR | os.O_NONBLOCK), "r+")


def wake_proxy(folder: Path) -> None:
    """Let the proxy of a folder read its routes, which one that does not run does at its start."""
    with (
        suppress(OSError),
        FileIO(os.open(folder / _WAKE_PIPE, os.O_WRONLY | os.O_NONBLOCK), "w") as pipe,
    ):
        pipe.write(b"\n")


class WeightedRoundRobin:
    """Picks backends in proportion to their weights, evenly interleaved.

    Smooth weighted round robin, as in nginx: of any N requests in a row, a backend of weight w is
    given N·w, give or take one.
    """

    def __init__(self, backends: Iterable[Backend]) -> None:
        """Start with equal credits."""
        self._credit = {backend: 0.0 for backend in backends if backend.weight > 0}

    def pick(self, without: frozenset[str] = frozenset()) -> Backend | None:
        """Return the backend of the next request; None where none is left."""
        candidates = [backend for backend in self._credit if backend.name not in without]
        if not candidates:
            return None
        for backend in candidates:
            self._credit[backend] += backend.weight
        chosen = max(candidates, key=lambda backend: self._credit[backend])
        self._credit[chosen] -= sum(backend.weight for backend in candidates)
        return chosen
