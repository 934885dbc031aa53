"""What tests ask about processes that may end at any moment."""

import psutil

from tests.support.waiting import wait_until


def is_running(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for (a zombie) does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def command_line(process: psutil.Process) -> list[str]:
    """Return the arguments of a process; none if it has ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def wait_until_ended(pid: int, seconds: float = 120.0) -> None:
    """Block until the process does not run.

    Raises:
        TimeoutError: It still runs after that time.
    """
    wait_until(lambda: not is_running(pid), seconds, f"the end of process {pid}")
