"""Supervisor of a forked child process, which is started again when it is killed or crashes."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_POLL_INTERVAL_S = 0.02
#: A child that ends so often within so many seconds is given up.
_MAX_STARTS, _WINDOW_S = 10, 10.0


def supervise(work: Callable[[], None]) -> int:
    """Run a function in a child process until this one is asked to end (SIGTERM, SIGINT).

    The child is a fork, with what is open here: call it before anything starts a thread. Where this
    process is killed, the child goes on.

    Args:
        work: Returns when its process gets SIGTERM.

    Returns:
        The exit code: 0 when asked to end, 1 if the child ends too often.
    """
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: signals.append(number))
    starts: deque[float] = deque(maxlen=_MAX_STARTS)
    while not signals:
        if len(starts) == _MAX_STARTS and time.monotonic() - starts[0] < _WINDOW_S:
            return 1
        starts.append(time.monotonic())
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        while child.is_alive():
            if signals and child.pid is not None:
                # Again and again: the first may come before the child listens to it.
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
            child.join(_POLL_INTERVAL_S)
    return 0
