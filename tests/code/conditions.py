"""Waits for what must become true, and no longer."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Return as soon as the condition holds.

    Raises:
        AssertionError: It does not hold after that many seconds; the message says what.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
