"""Waits for conditions that no event announces."""

import time
from collections.abc import Callable

POLL_INTERVAL_S = 0.05


def poll_until(
    condition: Callable[[], bool], timeout_s: float, interval_s: float = POLL_INTERVAL_S
) -> bool:
    """Check a condition until it holds or the time is up; return whether it held.

    Args:
        condition: Checked at once and then every ``interval_s`` seconds; may raise to stop.
        timeout_s: ``math.inf`` for no limit.
        interval_s: Seconds between two checks.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval_s)
    return True
