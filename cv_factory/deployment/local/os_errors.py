"""Translation of the errors of the file system into errors for people."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cv_factory.processes.daemon import DaemonError


@contextmanager
def translate_os_errors(folder: Path) -> Iterator[None]:
    """Translate what the system raises in the block, such as on a full disk.

    Raises:
        DaemonError: Names the folder and the reason.
    """
    try:
        yield
    except shutil.Error as error:
        # Of each file that could not be copied: source, target, reason.
        first: tuple[str, str, str] = error.args[0][0]
        raise DaemonError(f"{folder} cannot be written ({first[2]}).") from None
    except OSError as error:
        raise DaemonError(f"{folder} cannot be written ({error.strerror or error}).") from None
