"""What a running service is told by whoever deployed it: the folder it serves, its present stage.

Environment: ``CV_FACTORY_BUNDLE`` names the bundle's directory; without it, it is the folder
``bundle`` in the working directory, which is where a Bento has it. ``CV_FACTORY_STATE_FILE`` names
a JSON file such as ``{"stage": "production"}``, which is read whenever somebody asks.
``CV_FACTORY_GATEWAY`` names what stands between the service and all clients, and checks them.
"""

import json
import os
import tempfile
from pathlib import Path

BUNDLE_VARIABLE = "CV_FACTORY_BUNDLE"
STATE_VARIABLE = "CV_FACTORY_STATE_FILE"
GATEWAY_VARIABLE = "CV_FACTORY_GATEWAY"
#: Of the Prometheus client: workers of one server write their figures into this folder.
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def bundle_directory() -> Path:
    """Return where the bundle lies that this process serves."""
    return Path(os.environ.get(BUNDLE_VARIABLE) or "bundle").absolute()


def state_file() -> Path | None:
    """Return the file that tells the present stage, where there is one."""
    name = os.environ.get(STATE_VARIABLE)
    return Path(name) if name else None


def gateway() -> str | None:
    """Return what stands between this service and its clients, where something does."""
    return os.environ.get(GATEWAY_VARIABLE)


def shared_directory(server: int) -> Path:
    """Return where the workers of a server (its process id) leave figures and their last words."""
    return Path(tempfile.gettempdir()) / f"cv-factory-server-{server}"


def last_words(server: int) -> Path:
    """Return the file in which a worker says why it cannot work."""
    return shared_directory(server) / "cannot-start"


def share_metrics() -> None:
    """Say where the figures of this worker and its siblings go.

    BentoML has one folder for all services of a user, and empties it whenever one starts.
    """
    folder = shared_directory(os.getppid())
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ[METRICS_VARIABLE] = str(folder)


def read_stage(file: Path | None) -> str | None:
    """Return the present stage, None where nobody tells it."""
    if file is None:
        return None
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    stage = state.get("stage") if isinstance(state, dict) else None
    return stage if isinstance(stage, str) else None
