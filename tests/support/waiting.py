"""Waiting for what a test's processes and threads do."""

from collections.abc import Callable
from pathlib import Path

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


def has_lock_waiter(inode: int) -> bool:
    """Whether somebody waits for a lock of a file."""
    locks = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f":{inode} " in line for line in locks)
