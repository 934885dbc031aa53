"""CPUs of a process: those of its affinity, or fewer where a control group has a quota."""

import os
from pathlib import Path

import pytest

from cv_factory import cpu
from cv_factory.cpu import (
    available_cpus,
    limit_library_threads,
    limit_spinning,
    read_cpu_flags,
    read_cpu_quotas,
)

V2_MOUNT = "30 24 0:26 {root} {point} ro,nosuid - cgroup2 cgroup rw,nsdelegate"
V1_MOUNT = "31 24 0:27 {root} {point} ro,nosuid - cgroup cgroup rw,cpu,cpuacct"
OTHER_MOUNTS = (
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
    "32 24 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset",
    "33 24 0:29 / /tmp rw - tmpfs  rw",
)


def write_proc(folder: Path, groups: str, mount: str, root: str = "/") -> Path:
    """Write ``cgroup`` and ``mountinfo`` of a process; the hierarchy is ``folder/hierarchy``."""
    (folder / "cgroup").write_text(groups)
    line = mount.format(root=root, point=folder / "hierarchy")
    (folder / "mountinfo").write_text("\n".join((*OTHER_MOUNTS, line)) + "\n")
    return folder


def write_v2(folder: Path, limits: dict[str, str]) -> None:
    for group, text in limits.items():
        directory = folder / "hierarchy" / group
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cpu.max").write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("groups", "root", "limits", "quotas"),
    [
        ("0::/\n", "/", {"": "100000 100000"}, [1.0]),
        ("0::/\n", "/", {"": "max 100000"}, []),
        ("0::/\n", "/", {}, []),
        # The smallest of all groups around it counts, and none beside it.
        (
            "0::/pod/box\n",
            "/",
            {"pod": "150000 100000", "pod/box": "400000 100000", "pod/other": "1000 100000"},
            [4.0, 1.5],
        ),
        # A container sees its own group as the root of the mount, or a path beyond it.
        ("0::/docker/1/run\n", "/docker/1", {"": "250000 100000", "run": "max 100000"}, [2.5]),
        ("0::/docker/1\n", "/../..", {"": "50000 100000"}, [0.5]),
    ],
)
def test_quotas_of_version_2(
    tmp_path: Path, groups: str, root: str, limits: dict[str, str], quotas: list[float]
) -> None:
    write_v2(tmp_path, limits)
    assert read_cpu_quotas(write_proc(tmp_path, groups, V2_MOUNT, root)) == quotas


def test_quotas_of_version_1(tmp_path: Path) -> None:
    groups = "5:cpuset:/elsewhere\n4:cpu,cpuacct:/docker/1\n0::/\n"
    for directory, quota in (("", "-1"), ("docker", "300000"), ("docker/1", "150000")):
        group = tmp_path / "hierarchy" / directory
        group.mkdir(parents=True, exist_ok=True)
        (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (group / "cpu.cfs_period_us").write_text("100000\n")
    assert read_cpu_quotas(write_proc(tmp_path, groups, V1_MOUNT)) == [1.5, 3.0]


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert read_cpu_quotas(tmp_path) == []


@pytest.mark.parametrize(
    ("quotas", "cpus"), [([], 8), ([2.9], 2), ([4.0, 1.0], 1), ([0.5], 1), ([64.0], 8)]
)
def test_cpus_are_the_affinity_or_the_smallest_quota(
    monkeypatch: pytest.MonkeyPatch, quotas: list[float], cpus: int
) -> None:
    monkeypatch.setattr(cpu, "_schedulable_cpus", lambda: 8)
    monkeypatch.setattr(cpu, "read_cpu_quotas", lambda: quotas)
    assert available_cpus() == cpus


def test_flags_of_the_processor_are_read(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text(
        "processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\n\nflags : fpu\n"
    )
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp bf16\n")
    assert read_cpu_flags(tmp_path / "x86") == {"fpu", "avx2", "avx512_bf16"}
    assert read_cpu_flags(tmp_path / "arm") == read_cpu_flags(tmp_path / "none") == frozenset()


def test_waiting_threads_sleep_soon_unless_the_user_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variables, spinning in (
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ):
        monkeypatch.setattr(os, "environ", dict(variables))
        limit_spinning()
        assert os.environ == spinning


def test_thread_pools_of_libraries_follow_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import torch
    from threadpoolctl import threadpool_info, threadpool_limits

    from cv_factory.training.device import limit_threads

    np.ones((2, 2)) @ np.ones((2, 2))
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setattr(cpu, "read_cpu_quotas", lambda: [2.5])
    monkeypatch.setattr(cpu, "_schedulable_cpus", lambda: 64)
    before = torch.get_num_threads()
    try:
        with threadpool_limits(limits=4):
            torch.set_num_threads(4)
            limit_library_threads()
            limit_threads(processes=1)
            assert {pool["num_threads"] for pool in threadpool_info()} == {2}
            assert torch.get_num_threads() == 2
            limit_threads(processes=2)
            assert torch.get_num_threads() == 1
            limit_library_threads()
            assert torch.get_num_threads() == 1, "a pool with fewer threads keeps them"
    finally:
        torch.set_num_threads(before)
