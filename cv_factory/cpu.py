"""How many CPUs this process may use."""

import os


def available_cpus() -> int:
    """Return the number of CPUs that the scheduler lets this process run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
