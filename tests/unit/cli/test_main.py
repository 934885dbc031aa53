"""How run.py ends: signals, and errors of the machine."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from zenml.exceptions import IllegalOperationError

from cli import execution
from cli import main as cli_main
from cli.pipeline_config import ZenMLConfig
from cli.session import make_directory
from cv_factory.config.deployment import DeploymentPipelineConfig
from cv_factory.config.training import TrainingPipelineConfig, ValidationPipelineConfig
from cv_factory.errors import ConfigError
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return ``main`` with a command in place of run.py's."""

    def run_command(command: Callable[..., object], *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        monkeypatch.setattr(cli_main, "command", SimpleNamespace(main=command))
        # They would be those of all later tests of this process.
        monkeypatch.setattr(cli_main, "log_to_stderr", lambda: None)
        monkeypatch.setattr(cli_main, "limit_spinning", lambda: None)
        monkeypatch.setattr(cli_main, "bypass_proxies_on_loopback", lambda: None)
        return cli_main.main()

    return run_command


def test_threads_are_told_to_sleep_before_a_library_that_starts_some_is_loaded() -> None:
    script = "import os, sys; from cli.main import main; main(); assert 'numpy' not in sys.modules"
    script += "; print(os.environ['GOMP_SPINCOUNT'])"
    command = [sys.executable, "-c", script, "--help"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout.endswith("\n1000\n"), done.stderr


def test_sigterm_ends_a_command_as_ctrl_c_does(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned = []

    def command(**_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            cleaned.append(True)

    assert run(command) == 130
    assert cleaned
    assert capsys.readouterr().err == "\nInterrupted. The next run reuses the finished steps.\n"


def test_a_full_disk_is_one_line_and_debug_shows_the_traceback(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    def command(**_: object) -> None:
        raise OSError(errno.ENOSPC, "", "/store/images.npy")

    assert run(command) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("Error: /store/images.npy: No space left on device: free some space")
    assert errors.count("\n") == 1
    with pytest.raises(OSError, match=r"/store/images\.npy"):
        run(command, "--debug")


def test_a_step_that_outlives_its_interrupt_ends_the_run_as_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_steps(*_: object) -> None:
        raise IllegalOperationError("Stopping steps can not be transitioned to status `completed`.")

    monkeypatch.setattr(execution, "pipeline_options", lambda _: {})
    monkeypatch.setattr(execution, "print_cache_misses", lambda *_: None)
    monkeypatch.setattr(execution, "stop_interrupted_steps", lambda: None)
    orchestrator = SimpleNamespace(config=SimpleNamespace(is_synchronous=True))
    stack = SimpleNamespace(orchestrator=orchestrator)
    monkeypatch.setattr(execution, "Client", lambda: SimpleNamespace(active_stack=stack))
    pipeline: Any = SimpleNamespace(name="training", with_options=lambda **_: run_steps)
    with pytest.raises(KeyboardInterrupt):
        execution.run_to_end(pipeline, ZenMLConfig(), ZenMLConfig(), debug=True)


def test_a_run_is_announced_as_that_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert execution.find_model_name(ValidationPipelineConfig()) == ""
    assert execution.find_model_name(TrainingPipelineConfig()) == "cv_factory"
    names = ["pets"]
    monkeypatch.setattr("registry.versions.model_names", lambda: names)
    assert execution.find_model_name(DeploymentPipelineConfig()) == "pets"
    names.append("digits")
    assert execution.find_model_name(DeploymentPipelineConfig()) == ""


def test_an_output_directory_that_cannot_be_written_is_named_with_the_reason(
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(ConfigError, match=r"out cannot be written: 3 of 9 values were written\."),
        make_directory(tmp_path / "out"),
    ):
        raise OSError("3 of 9 values were written")  # as NumPy on a full disk
