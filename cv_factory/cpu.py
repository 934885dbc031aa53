"""Number of CPUs and threads that this process may use."""

import os


def available_cpus() -> int:
    """Return the number of CPUs that the scheduler lets this process run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def fitting_threads() -> int:
    """Return the number of threads of one fit: ``OMP_NUM_THREADS`` if set, else all CPUs.

    The search sets the variable for its parallel workers.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(available_cpus(), int(limit)) if limit.isdigit() and int(limit) else available_cpus()
