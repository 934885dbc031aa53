"""Lock of a model's deployments on this machine: one at a time, and the second learns who holds it.

The operating system keeps the lock and releases it when its holder ends, however that ends: the
note of a dead process is never believed.
"""

import fcntl
import getpass
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from cv_factory.errors import CVFactoryError


class BusyError(CVFactoryError):
    """Another process deploys this model."""


class LockError(CVFactoryError):
    """The system cannot lock a model's deployments."""


@contextmanager
def deployment_lock(stores: Path, model_name: str) -> Iterator[None]:
    """Hold the lock of a model's deployments during the block.

    Args:
        stores: ZenML's local stores, shared by all deployments from this machine.
        model_name: Name of the registered model.

    Raises:
        BusyError: Another process holds it; it is named.
        LockError: The system cannot lock, such as on a full disk.
    """
    path = stores / "deployments" / f"{model_name}.lock"
    with _translate_os_errors(path, model_name):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk does not take is not tried again when the file is closed.
        file = FileIO(path, "a+")
    with file:
        with _translate_os_errors(path, model_name):
            _lock(file, model_name)
        # The lock holds without a note of its holder.
        with suppress(OSError):
            file.truncate(0)
            file.write(_note())
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


@contextmanager
def _translate_os_errors(path: Path, model_name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LockError(
            f"{path} cannot be locked ({error.strerror}): see that you may write it and that the "
            f"disk is not full; it may be deleted while nobody deploys {model_name}."
        ) from None


def _lock(file: FileIO, model_name: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = _describe_holder(file.readall())
        raise BusyError(
            f"{model_name} is being deployed by {holder}: wait until that has ended, and give the "
            "command again."
        ) from None


def _note() -> bytes:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"who": _user(), "process": os.getpid(), "since": since}).encode()


def _describe_holder(note: bytes) -> str:
    # The holder may have the lock and not have written yet.
    with suppress(ValueError, KeyError, TypeError):
        holder = json.loads(note)
        return f"{holder['who']} (process {holder['process']}, since {holder['since']})"
    return "another process"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
