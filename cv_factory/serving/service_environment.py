"""Environment of a service process: the bundle it serves, its stage and arm, shared files.

``CV_FACTORY_BUNDLE`` names the bundle's directory; the default is ``bundle`` in the working
directory, where a Bento has it. ``CV_FACTORY_STATE_FILE`` names a JSON file such as
``{"stage": "production", "arm": "stable"}``, which is read again when it changes.
``CV_FACTORY_GATEWAY`` names the gateway that alone can reach the service and that authorizes its
clients. ``CV_FACTORY_GRPC_PORT`` is the port for gRPC; without it none is served.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from cv_factory.errors import ConfigError

BUNDLE_VARIABLE = "CV_FACTORY_BUNDLE"
STATE_VARIABLE = "CV_FACTORY_STATE_FILE"
GATEWAY_VARIABLE = "CV_FACTORY_GATEWAY"
GRPC_PORT_VARIABLE = "CV_FACTORY_GRPC_PORT"
#: Read by the Prometheus client: the folder in which a server's workers share their metrics.
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def bundle_directory() -> Path:
    """Return the directory of the bundle that this process serves."""
    return Path(os.environ.get(BUNDLE_VARIABLE) or "bundle").absolute()


def state_file() -> Path | None:
    """Return the file with the present stage, if the environment names one."""
    name = os.environ.get(STATE_VARIABLE)
    return Path(name) if name else None


def gateway() -> str | None:
    """Return the name of the gateway before this service, if there is one."""
    return os.environ.get(GATEWAY_VARIABLE)


def grpc_port() -> int | None:
    """Return the port on which this service serves gRPC; None if it does not.

    Raises:
        ConfigError: It is no port.
    """
    text = os.environ.get(GRPC_PORT_VARIABLE)
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise ConfigError(f"{GRPC_PORT_VARIABLE}={text} is no port: set it to 1 to 65535.")
    return int(text)


def server_directory(server_pid: int) -> Path:
    """Return the directory that the workers of a server share: metrics and startup errors."""
    return Path(tempfile.gettempdir()) / f"cv-factory-server-{server_pid}"


def create_server_directory(server_pid: int) -> Path:
    """Create and return the directory, without what an earlier server of this process id left.

    Raises:
        ConfigError: Another user's directory is in its place, or the disk is full.
    """
    directory = server_directory(server_pid)
    shutil.rmtree(directory, ignore_errors=True)
    try:
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise ConfigError(f"Cannot create {directory} ({error.strerror}): set TMPDIR.") from None
    return directory


def startup_error_file(server_pid: int) -> Path:
    """Return the file in which a worker reports why it cannot start."""
    return server_directory(server_pid) / "cannot-start"


def served_file(server_pid: int) -> Path:
    """Return the file that says that a worker of this server was once ready."""
    return server_directory(server_pid) / "has-served"


class ServiceState:
    """Stage of the served version and its arm in a rollout, from the file that the deployer writes.

    The file is read again only when it was replaced, so that each prediction can name its arm.
    """

    def __init__(self, file: Path | None) -> None:
        """Read nothing yet.

        Args:
            file: JSON; None where there is none.
        """
        self._file = file
        self._version: tuple[int, ...] = ()
        self._values: dict[str, Any] = {}

    @property
    def stage(self) -> str | None:
        """Stage of the version; None where the file is missing or does not name one."""
        return self._read("stage")

    @property
    def arm(self) -> str | None:
        """Arm of the service: ``stable``, ``canary``, ``shadow``; None as for ``stage``."""
        return self._read("arm")

    @property
    def rollout(self) -> str | None:
        """What became of the model's last rollout, for people; None as for ``stage``."""
        return self._read("rollout")

    def _read(self, key: str) -> str | None:
        if self._file is None:
            return None
        try:
            status = self._file.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version != self._version:
                values = json.loads(self._file.read_bytes())
                self._values = values if isinstance(values, dict) else {}
                self._version = version
        except (OSError, ValueError):
            self._version, self._values = (), {}
        value = self._values.get(key)
        return value if isinstance(value, str) else None
