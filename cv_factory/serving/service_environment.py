"""Environment of a service process: the bundle it serves, its present stage, shared files.

``CV_FACTORY_BUNDLE`` names the bundle's directory; the default is ``bundle`` in the working
directory, where a Bento has it. ``CV_FACTORY_STATE_FILE`` names a JSON file such as
``{"stage": "production"}``, which is read on every request for it. ``CV_FACTORY_GATEWAY`` names the
gateway that alone can reach the service and that authorizes its clients.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

from cv_factory.errors import ConfigError

BUNDLE_VARIABLE = "CV_FACTORY_BUNDLE"
STATE_VARIABLE = "CV_FACTORY_STATE_FILE"
GATEWAY_VARIABLE = "CV_FACTORY_GATEWAY"
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


def read_stage(file: Path | None) -> str | None:
    """Return the present stage; None if the file is missing or does not name one."""
    if file is None:
        return None
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    stage = state.get("stage") if isinstance(state, dict) else None
    return stage if isinstance(stage, str) else None
