"""Checkpoints: a training that is killed at any moment ends with the same bytes."""

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cv_factory.config.train import TrainConfig
from cv_factory.processes.polling import poll_until
from cv_factory.training import device
from cv_factory.training.callbacks import EpochCallback
from cv_factory.training.checkpoint import DIRECTORY_VARIABLE
from cv_factory.training.trained_model import TrainedModel
from tests.support.digits import load_digits
from tests.support.paths import ROOT as _ROOT
from tests.support.resumable_training import CONFIG, MODEL

_KILLS = 4


class StoppedError(Exception):
    """Ends a training from within, between two epochs."""


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkpoints"
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(root))
    return root


class TrainingServer:
    """Process that trains in forks, which can be killed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.resumable_training"],
            env={**os.environ, "PYTHONPATH": str(_ROOT), DIRECTORY_VARIABLE: str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self) -> int:
        """Begin a training; return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._line("PID "))

    def finish(self) -> str:
        """Wait until it is trained; return its fingerprint."""
        return self._line("TRAINED ")

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self, begin: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith(begin), line
        return line.removeprefix(begin).strip()


@pytest.fixture
def trainer(checkpoints: Path) -> Iterator[TrainingServer]:
    trainer = TrainingServer(checkpoints)
    yield trainer
    trainer.stop()


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_weights(trainer: TrainingServer) -> None:
    trainer.start()
    start = time.monotonic()
    expected = trainer.finish()
    duration = time.monotonic() - start
    assert not list(trainer.root.iterdir()), "checkpoints are removed after success"
    newest = ""
    moments = random.Random(4)
    for _ in range(_KILLS):
        pid = trainer.start()
        assert poll_until(lambda: _newest(trainer.root) > newest, 120, interval_s=0.005)  # noqa: B023
        newest = _newest(trainer.root)
        threading.Event().wait(moments.uniform(0, 0.1) * duration)
        os.kill(pid, signal.SIGKILL)
    trainer.start()
    assert trainer.finish() == expected
    assert not list(trainer.root.iterdir())


def _newest(root: Path) -> str:
    return max((path.name for path in root.glob("*/[0-9]*")), default="")


def _train(on_epoch: EpochCallback = lambda *_: None, **changes: object) -> TrainedModel:
    config = TrainConfig.model_validate({**CONFIG.model_dump(), **changes})
    return load_digits(300).train(MODEL, config, on_epoch)


def _interrupt(after: int = 3, **changes: object) -> None:
    def stop(epoch: int, _metrics: dict[str, float]) -> None:
        if epoch == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        _train(stop, **changes)


def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    checkpoints: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    expected = _train(precision="fp16", optimizer="sgd").fingerprint
    _interrupt(precision="fp16", optimizer="sgd")
    files = sorted(checkpoints.glob("*/*/tensors.safetensors"))
    assert len(files) == CONFIG.keep_checkpoints
    content = bytearray(files[-1].read_bytes())
    content[-1] ^= 1
    files[-1].write_bytes(content)
    epochs: list[int] = []
    resumed = _train(lambda e, _m: epochs.append(e), precision="fp16", optimizer="sgd")
    assert resumed.fingerprint == expected
    assert epochs == [2, 3], "one epoch had to be done again, not all of them"
    assert f"{files[-1]} does not match its checksum" in caplog.text
    assert f"Continuing from checkpoint {files[0].parent}: epoch 2," in caplog.text


def test_a_training_without_a_checkpoint_leaves_no_directory(checkpoints: Path) -> None:
    _interrupt(after=1, checkpoint_seconds=1000.0)
    assert not list(checkpoints.iterdir())


def test_a_changed_setting_never_resumes_it(checkpoints: Path) -> None:
    _interrupt()
    before = {path.name for path in checkpoints.iterdir()}
    expected = _train(learning_rate=1e-3, resident_mb=0)
    assert {path.name for path in checkpoints.iterdir()} == before
    assert len(expected.history) == 3
    # Where the images lie changes no weight: this resumes the interrupted training.
    epochs: list[int] = []
    _train(lambda epoch, _m: epochs.append(epoch), resident_mb=0)
    assert epochs == [3]


def test_a_training_that_began_in_fp32_continues_so_where_bf16_is_fast(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupt()
    monkeypatch.setattr(device, "read_cpu_flags", lambda: {"avx512_bf16"})
    monkeypatch.setattr(device, "_SMALLEST_BF16_SIDE", 8)
    epochs: list[int] = []
    assert _train(lambda epoch, _m: epochs.append(epoch)).precision == "fp32"
    assert epochs == [3]
    assert not list(checkpoints.iterdir())
