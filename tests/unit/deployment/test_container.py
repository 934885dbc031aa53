"""The container of a bundle, built and run by a real Docker engine."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.digits_service import digits_bundle
from tests.support.try_container import try_container

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]


def test_the_container_answers_read_only_and_as_nobody_special(
    engine: Callable[..., str], missing_engine: Callable[[str], NoReturn]
) -> None:
    for program in ("dockerd", "containerd", "runc", "debootstrap"):
        engine(program)
    if os.getuid() != 0:
        missing_engine("only root starts a Docker engine")
    # Not below tmp_path: the path of a socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="docker-") as folder:
        trial = try_container(digits_bundle(), Path(folder))
    assert trial.verification.n_samples == 20
    assert trial.user == "service"
    assert trial.health == "healthy"
    assert "Read-only file system" in trial.refused
    assert trial.exit_code == 0
    assert trial.image_bytes - trial.base_bytes < 400e6
