"""Calls an action periodically: never two at a time, and once for all times that were missed."""

import time
from collections.abc import Callable

#: Longest wait without a look at the clock, since a machine that sleeps stops the waiting too.
_LONGEST_SLEEP_S = 60.0


def run_periodically(
    action: Callable[[], None],
    interval_s: float,
    on_missed: Callable[[int], None],
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Call an action now and then at every interval, until it or a signal raises.

    Args:
        action: Called again once it has returned.
        interval_s: Seconds between two calls, from start to start.
        on_missed: Told how many times were missed before the next call.
        clock: Seconds since 1970, of the system's clock.
        sleep: Waits so many seconds.
    """
    due = clock()
    while True:
        action()
        due += interval_s
        while (remaining := due - clock()) > 0:
            # After a step of the clock backwards, no longer than the interval.
            due = min(due, clock() + interval_s)
            sleep(min(remaining, _LONGEST_SLEEP_S))
        n_missed = int(-remaining // interval_s)
        if n_missed:
            on_missed(n_missed)
            due = clock()
