"""Waiting for what a test's processes and threads do."""

from collections.abc import Callable

import psutil

from cv_factory.processes.polling import poll_until


def wait_until(
    condition: Callable[[], object], seconds: float = 120.0, what: str = "the condition"
) -> None:
    """Block until a condition holds.

    Raises:
        TimeoutError: It does not within that time.
    """
    if not poll_until(lambda: bool(condition()), seconds, 0.02):
        raise TimeoutError(f"{what} does not hold after {seconds:g} s")


def wait_until_ended(*pids: int, seconds: float = 120.0) -> None:
    """Block until none of these processes runs; one whose parent has not waited for it has ended.

    Raises:
        TimeoutError: One still runs after that time.
    """
    wait_until(lambda: not any(map(_runs, pids)), seconds, f"the end of {pids}")


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
