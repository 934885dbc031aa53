"""Runs something in a child process, and again whenever that is killed or crashes."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_POLL_SECONDS = 0.02
#: What ends so often in so many seconds will do so again.
_MAX_STARTS, _WITHIN_SECONDS = 10, 10.0


def supervise(work: Callable[[], None]) -> int:
    """Run a function in a child process until this one is asked to end (SIGTERM, SIGINT).

    The child is a fork, with what is open here: call it before anything starts a thread. Where this
    process is killed, the child goes on.

    Args:
        work: Returns when its process gets SIGTERM.

    Returns:
        The exit code: 0 when asked to end, 1 if the child ends again and again.
    """
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: asked.append(number))
    starts: deque[float] = deque(maxlen=_MAX_STARTS)
    while not asked:
        if len(starts) == _MAX_STARTS and time.monotonic() - starts[0] < _WITHIN_SECONDS:
            return 1
        starts.append(time.monotonic())
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        while child.is_alive():
            if asked and child.pid is not None:
                # Again and again: the first may come before the child listens to it.
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
            child.join(_POLL_SECONDS)
    return 0
