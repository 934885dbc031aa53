"""Process that has begun something, in its audit entry: another process knows whether it runs."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import psutil


def current_process() -> dict[str, Any]:
    """Return this process for an audit entry."""
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "process_started": _start_time(os.getpid()),
        "begun": time.time(),
    }


def is_current(owner: Mapping[str, Any]) -> bool:
    """Return whether an owner is this process, or an earlier one of its id."""
    return (owner["host"], owner["process"]) == (socket.gethostname(), os.getpid())


def is_running(owner: Mapping[str, Any], lease_s: float) -> bool:
    """Return whether an owner still runs.

    One of another machine does for ``lease_s`` seconds. One from the future does not: a clock was
    set.
    """
    if owner["host"] != socket.gethostname():
        return abs(time.time() - float(owner["begun"])) < lease_s
    return _is_process_alive(owner["process"], owner.get("process_started"))


def _is_process_alive(process_id: int, start_time: float | None) -> bool:
    """Return whether the process that started then still runs; process ids are reused.

    None, of an earlier release, is the start of none that runs: an intent can be completed twice.
    """
    try:
        return start_time is not None and abs(_start_time(process_id) - start_time) < 2.0
    except psutil.NoSuchProcess:
        return False


def _start_time(process_id: int) -> float:
    """Return the seconds from the machine's start to that of a process: no clock changes them."""
    created = float(psutil.Process(process_id).create_time())
    # Linux alone derives the time of creation from that of the machine's start.
    return created - psutil.boot_time() if psutil.LINUX else created
