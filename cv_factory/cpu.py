"""Number of CPUs and threads that this process may use."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_PROC = Path("/proc/self")
_CPUINFO = Path("/proc/cpuinfo")
#: Of GNU's OpenMP: rounds for which a thread spins before it sleeps; see ``limit_spinning``.
SPIN_VARIABLE, SPIN_COUNT = "GOMP_SPINCOUNT", "1000"


def available_cpus() -> int:
    """Return the number of CPUs that this process may use, at least 1.

    That is what the scheduler lets it run on, or fewer where a control group has a quota, which
    ``docker run --cpus`` and limits of Kubernetes set. Fractions are rounded down: one thread more
    than the quota pays for stalls all of them for a part of each period.
    """
    return max(1, int(min([_schedulable_cpus(), *read_cpu_quotas()])))


def _schedulable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_cpu_quotas(proc: Path = _PROC) -> list[float]:
    """Return the CPU quotas of this process's control group and of those around it, in CPUs.

    Empty where there is none, and on systems without control groups. See cgroups(7).

    Args:
        proc: Holds ``cgroup`` and ``mountinfo``.
    """
    with suppress(OSError):
        groups = _parse_groups((proc / "cgroup").read_text())
        mounts = (proc / "mountinfo").read_text().splitlines()
        return [
            quota
            for mount in mounts
            for directory in _group_directories(mount, groups)
            if (quota := _read_quota(directory)) is not None
        ]
    return []


def _parse_groups(text: str) -> dict[str, str]:
    """Return the path of the group by version: of the unified hierarchy (v2), of v1's ``cpu``."""
    lines = (line.split(":", 2) for line in text.splitlines())
    names = {"": "cgroup2", "cpu": "cgroup"}
    return {
        names[controller]: path
        for _, controllers, path in lines
        for controller in controllers.split(",")
        if controller in names
    }


def _group_directories(mount: str, groups: dict[str, str]) -> Iterator[Path]:
    """Yield the directories of the group and of those around it below a mount point.

    A container may see the hierarchy from its own group down, which is the mount's root then.
    """
    fields, _, source = mount.partition(" - ")
    root, point = fields.split()[3:5]
    kind, _, options = source.partition(" ")
    if kind not in groups or (kind == "cgroup" and "cpu" not in options.split(" ")[-1].split(",")):
        return
    group = PurePosixPath(groups[kind])
    inside = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
    for directory in (inside, *inside.parents):
        yield Path(point, directory)


def _read_quota(directory: Path) -> float | None:
    """Return the quota of one group in CPUs; None if it has none."""
    with suppress(OSError, ValueError):
        if (limits := directory / "cpu.max").exists():
            quota, period = map(int, limits.read_text().split())
        else:
            quota = int((directory / "cpu.cfs_quota_us").read_text())
            period = int((directory / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 and period > 0 else None
    # No such file, or the word "max".
    return None


def fitting_threads() -> int:
    """Return the number of threads of one fit: ``OMP_NUM_THREADS`` if set, else all CPUs.

    The search sets the variable for its parallel workers.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(available_cpus(), int(limit)) if limit.isdigit() and int(limit) else available_cpus()


def read_cpu_flags(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Return the instruction sets of an x86 processor as Linux names them, such as ``avx2``.

    Empty on other processors and systems.
    """
    with suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "flags":
                return frozenset(value.split())
    return frozenset()


def limit_spinning() -> None:
    """Let threads of OpenMP sleep soon after they began to wait for each other.

    By default they spin for milliseconds, thousands of times a second. Where another process has
    a CPU, that takes the time of the thread that is waited for. 1,000 rounds, some microseconds,
    are what GNU's OpenMP itself does where it knows of more threads than CPUs. Libraries read the
    variable when they are loaded, so this is called where a process begins; those that it starts
    inherit it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPIN_VARIABLE, SPIN_COUNT)


def limit_library_threads() -> None:
    """Let the loaded thread pools of OpenBLAS and OpenMP use no more than ``fitting_threads``.

    They see no quota. A pool that has fewer threads keeps them.
    """
    from threadpoolctl import ThreadpoolController

    threads = fitting_threads()
    for pool in ThreadpoolController().lib_controllers:
        if pool.num_threads > threads:
            pool.set_num_threads(threads)
