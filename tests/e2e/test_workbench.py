"""The fixtures themselves: a clean client, the same paths again, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.project import Project

ACTIVE_STACK = "from zenml.client import Client; print('ACTIVE', Client().active_stack_model.name)"


def test_a_pristine_project_is_a_clean_clone(pristine_project: Project) -> None:
    assert not pristine_project.zenml_config.exists()
    assert (pristine_project.root / "configs" / "training.yaml").is_file()
    assert not (pristine_project.root / ".venv").exists()
    assert pristine_project.git("status", "--porcelain").stdout == ""
    assert len(pristine_project.head) == 40


def test_the_applied_project_has_the_local_stack_active(project: Project) -> None:
    assert "ACTIVE local" in project.warm("-c", ACTIVE_STACK).stdout
    assert project.zenml_config.is_relative_to(project.home)


def test_a_state_comes_back_whole_and_under_the_same_path(project: Project) -> None:
    before, config = project.root, project.zenml_config / "config.yaml"
    content = config.read_bytes()
    config.write_text("damaged")
    (project.root / "run.py").unlink()
    project.restore("applied")
    assert project.root == before
    assert config.read_bytes() == content
    assert (project.root / "run.py").is_file()


def test_commands_see_nothing_of_the_caller(
    pristine_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CV_FACTORY_DATA", "the user's")
    monkeypatch.setenv("ZENML_STORE_URL", "the user's")
    source = "import json, os; print(json.dumps(dict(os.environ)))"
    environment = json.loads(pristine_project.python(source).stdout)
    assert "the user's" not in environment.values()
    home = str(Path("~").expanduser())
    inside = str(pristine_project.home)
    assert environment["HOME"] == inside != home
    for name in ("ZENML_CONFIG_PATH", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        assert environment[name].startswith(inside)


def test_the_network_is_refused(pristine_project: Project) -> None:
    source = "import requests; requests.get('http://example.invalid', timeout=20)"
    result = pristine_project.python(source, code=1)
    assert "ProxyError" in result.stderr


def test_an_unexpected_exit_code_fails_with_the_output(pristine_project: Project) -> None:
    source = "import sys; print('some words'); sys.exit(3)"
    pristine_project.python(source, code=3)
    with pytest.raises(AssertionError, match=r"(?s)ended with 3, not 0.*some words"):
        pristine_project.python(source)


def test_nothing_outlives_a_time_out(pristine_project: Project) -> None:
    child = "import time; time.sleep(60)"
    source = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "time.sleep(60)"
    )
    with pytest.raises(AssertionError, match="took longer than 1 s"):
        pristine_project.python(source, timeout=1)
    _wait_until_gone(pristine_project)


def test_a_daemon_in_a_session_of_its_own_is_found_and_stopped(pristine_project: Project) -> None:
    child = "import time; time.sleep(60)"
    source = (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True,\n"
        "    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)"
    )
    pristine_project.python(source)
    assert len(pristine_project.processes()) == 1
    pristine_project.stop()
    assert pristine_project.processes() == []


def test_a_started_command_can_be_interrupted(pristine_project: Project) -> None:
    source = "import time; print('ready', flush=True); time.sleep(60)"
    with pristine_project.started([sys.executable, "-c", source]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=20) == -signal.SIGINT
    assert pristine_project.processes() == []


def test_this_process_would_not_touch_the_users_zenml() -> None:
    source = "from zenml.utils.io_utils import get_global_config_directory as f; print(f())"
    result = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip().endswith(os.environ["ZENML_CONFIG_PATH"])
    assert "cv-factory-tests-" in os.environ["ZENML_CONFIG_PATH"]


def _wait_until_gone(project: Project) -> None:
    deadline = time.monotonic() + 60
    while project.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert project.processes() == []
