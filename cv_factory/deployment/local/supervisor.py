"""Supervisor of a forked child process, which is started again when it is killed or crashes."""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable

#: A child that ends so often within so many seconds is given up.
_MAX_STARTS, _WINDOW_S = 10, 10.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_STOP_SIGNALS, signal.SIGCHLD)


def supervise(work: Callable[[], None], on_stop: Callable[[], None]) -> int:
    """Run a function in a child process until this one is asked to end (SIGTERM, SIGINT).

    The child is a fork, with what is open here: call it before anything starts a thread. Where this
    process is killed, the child goes on.

    Args:
        work: Returns when its process gets SIGTERM.
        on_stop: Called before the child is sent SIGTERM.

    Returns:
        The exit code: 0 when asked to end, 1 if the child ends too often.
    """
    # Waited for without polling: blocked signals are kept, so that none is missed.
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    starts: deque[float] = deque(maxlen=_MAX_STARTS)
    is_stopping = False
    while not is_stopping:
        if len(starts) == _MAX_STARTS and time.monotonic() - starts[0] < _WINDOW_S:
            return 1
        starts.append(time.monotonic())
        child = multiprocessing.get_context("fork").Process(target=_run, args=(work,))
        child.start()
        while child.is_alive():
            if signal.sigwait(_SIGNALS) in _STOP_SIGNALS:
                is_stopping = True
                on_stop()
                child.terminate()
    return 0


def _run(work: Callable[[], None]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    work()
