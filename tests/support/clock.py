"""A step of the system's clock, as after NTP or a suspended virtual machine."""

import psutil
import pytest


def step_clock(monkeypatch: pytest.MonkeyPatch, seconds: float = 3600.0) -> None:
    """Let Linux report another boot time, from which psutil derives when processes started."""
    boot_time = psutil.boot_time() + seconds
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot_time)
