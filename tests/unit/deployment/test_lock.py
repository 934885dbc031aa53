"""One deployment of a model at a time, whoever deploys, and nobody who is dead holds it."""

import subprocess
import sys
from pathlib import Path

import pytest

from cv_factory.deployment.lock import BusyError, LockError, deployment_lock

_HOLD = """
import sys
from pathlib import Path
from cv_factory.deployment.lock import deployment_lock

with deployment_lock(Path(sys.argv[1]), "digits"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_told_who_holds_it_and_the_dead_hold_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        named = rf"digits is being deployed by \w+ \(process {holder.pid}, since 20"
        with pytest.raises(BusyError, match=named), deployment_lock(tmp_path, "digits"):
            pass
        with deployment_lock(tmp_path, "letters"):
            pass
        holder.kill()
        holder.wait()
        with (
            deployment_lock(tmp_path, "digits"),
            pytest.raises(BusyError),
            deployment_lock(tmp_path, "digits"),
        ):
            pass
    with deployment_lock(tmp_path, "digits"):
        pass
    assert (tmp_path / "deployments" / "digits.lock").read_bytes() == b"", "nobody is named"


def test_a_lock_that_cannot_be_had_is_named_and_a_full_disk_keeps_nobody_from_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "deployments").mkdir()
    (tmp_path / "deployments" / "digits.lock").mkdir()
    named = r"digits\.lock cannot be locked \(Is a directory\)"
    with pytest.raises(LockError, match=named), deployment_lock(tmp_path, "digits"):
        pass
    (tmp_path / "deployments" / "letters.lock").symlink_to("/dev/full")
    with deployment_lock(tmp_path, "letters"):
        pass
