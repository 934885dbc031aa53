"""Routes of a proxy: the services behind it and what each is given, in a file."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cv_factory.artifacts.files import canonical_json
from cv_factory.deployment.traffic import Arm, Sticky, TlsFiles
from cv_factory.errors import ArtifactError

ROUTES = "routes.json"


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

    def to_json(self) -> str:
        """Return the text of the file."""
        return canonical_json(_adapter().dump_python(self, mode="json"))

    @classmethod
    def load(cls, path: Path) -> "Routes":
        """Read the file; no backends where there is none.

        Raises:
            ArtifactError: It is damaged.
        """
        try:
            return _adapter().validate_python(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return cls()
        except (ValueError, ValidationError) as error:
            raise ArtifactError(
                f"{path} is damaged ({error}): delete it, and deploy the model again."
            ) from None


@cache
def _adapter() -> TypeAdapter[Routes]:
    # Building one takes a millisecond, and the supervisor reads the file every second.
    return TypeAdapter(Routes)
