"""The Docker engine that images are tried on: nothing of it is left, even if it does not end."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from tests.support import docker_engine

_FAKE_DOCKERD = """#!/bin/sh
trap '' TERM
echo $$ > "$FAKE_PID"
while :; do sleep 0.1; done
"""
_FAKE_DOCKER = """#!/bin/sh
test -s "$FAKE_PID"
"""


def test_an_engine_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, pid = tmp_path / "programs", tmp_path / "fake.pid"
    programs.mkdir()
    for name, text in (("dockerd", _FAKE_DOCKERD), ("docker", _FAKE_DOCKER)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_PID", str(pid))
    monkeypatch.setattr(docker_engine, "_STOP_SECONDS", 0.1)
    with docker_engine.docker_engine(tmp_path / "engine"):
        assert psutil.pid_exists(int(pid.read_text()))
    assert not psutil.pid_exists(int(pid.read_text()))


@pytest.mark.engines
def test_mounts_are_undone_the_inner_ones_first_and_only_in_that_folder(
    tmp_path: Path, engine: Callable[..., str], missing_engine: Callable[[str], NoReturn]
) -> None:
    mount, umount = engine("mount"), engine("umount")
    if os.getuid() != 0:
        missing_engine("only root mounts a file system")
    folder, other = tmp_path / "engine", tmp_path / "engine2"
    places = [folder / "outer", folder / "outer" / "inner", other]
    try:
        for place in places:
            place.mkdir(parents=True)
            subprocess.run([mount, "-t", "tmpfs", "tmpfs", str(place)], check=True)
        docker_engine.unmount_below(folder)
        assert [place.is_mount() for place in places] == [False, False, True]
    finally:
        for place in reversed([place for place in places if place.is_mount()]):
            subprocess.run([umount, str(place)], check=True)
