"""One deployment of a model at a time: whoever comes second is told who holds it.

The system itself keeps the lock and gives it back when its holder ends, however that ends: what a
dead process wrote down is never believed.
"""

import fcntl
import getpass
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from cv_factory.errors import CVFactoryError


class BusyError(CVFactoryError):
    """Another process deploys this model."""


@contextmanager
def turn(stores: Path, model_name: str) -> Iterator[None]:
    """Hold the deployments of a model during the block.

    Args:
        stores: ZenML's local stores, which all who deploy from this machine share.
        model_name: Name of the registered model.

    Raises:
        BusyError: Another process holds them; it is named.
    """
    path = stores / "deployments" / f"{model_name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BusyError(
                f"{model_name} is being deployed by {_holder(file.read())}: wait until that has "
                "ended, and give the command again."
            ) from None
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"who": _user(), "process": os.getpid(), "since": since}))
        file.flush()
        yield


def _holder(written: str) -> str:
    # The holder may have the lock and not have written yet.
    with suppress(ValueError, KeyError, TypeError):
        holder = json.loads(written)
        return f"{holder['who']} (process {holder['process']}, since {holder['since']})"
    return "another process"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
