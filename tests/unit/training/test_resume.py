"""Checkpoints: a training that is killed at any moment ends with the same bytes."""

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

from cv_factory.config.data import DataConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import PCAConfig, TransformConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.split import split_dataset
from cv_factory.training.checkpoint import DIRECTORY_VARIABLE
from cv_factory.training.train import train
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import fit_transform
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


class Trainer:
    """Trains in a process of its own, which can be killed."""

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
def trainer(checkpoints: Path) -> Iterator[Trainer]:
    trainer = Trainer(checkpoints)
    yield trainer
    trainer.stop()


def test_killed_at_random_moments_it_ends_with_the_same_weights(trainer: Trainer) -> None:
    trainer.start()
    begun = time.monotonic()
    expected = trainer.finish()
    whole = time.monotonic() - begun
    assert not list(trainer.root.iterdir()), "checkpoints are removed after success"
    reached = ""
    moments = random.Random(4)
    for _ in range(_KILLS):
        pid = trainer.start()
        before = reached
        while (reached := _newest(trainer.root)) <= before:
            assert time.monotonic() - begun < 120
        threading.Event().wait(moments.uniform(0, 0.1) * whole)
        os.kill(pid, signal.SIGKILL)
    trainer.start()
    assert trainer.finish() == expected
    assert not list(trainer.root.iterdir())


def _newest(root: Path) -> str:
    return max((path.name for path in root.glob("*/[0-9]*")), default="")


@pytest.fixture(scope="module")
def digits() -> tuple[object, ...]:
    dataset = ingest(DataConfig(limit=300))
    split = split_dataset(dataset, SplitConfig())
    config = TransformConfig(pca=PCAConfig(n_components=4))
    return dataset, split, fit_transform(dataset, split.train, config)


def _train(digits: tuple[object, ...], stop_after: int = 0, **changes: object) -> TrainedModel:
    def on_epoch(epoch: int, _metrics: dict[str, float]) -> None:
        if epoch == stop_after:
            raise StoppedError

    config = TrainConfig.model_validate({**CONFIG.model_dump(), **changes})
    return train(*digits, MODEL, config, on_epoch)  # type: ignore[arg-type]


def _interrupt(digits: tuple[object, ...], **changes: object) -> None:
    with pytest.raises(StoppedError):
        _train(digits, stop_after=3, **changes)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    digits: tuple[object, ...],
    checkpoints: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = _train(digits, precision="fp16", optimizer="sgd").fingerprint
    _interrupt(digits, precision="fp16", optimizer="sgd")
    kept = sorted(checkpoints.glob("*/*/tensors.safetensors"))
    assert len(kept) == CONFIG.keep_checkpoints
    content = bytearray(kept[-1].read_bytes())
    content[-1] ^= 1
    kept[-1].write_bytes(content)
    seen: list[int] = []
    config = CONFIG.model_copy(update={"precision": "fp16", "optimizer": "sgd"})
    again = train(*digits, MODEL, config, lambda e, _m: seen.append(e))  # type: ignore[arg-type]
    assert again.fingerprint == expected
    assert seen == [2, 3], "one epoch had to be done again, not all of them"
    assert f"{kept[-1]} does not match its checksum" in caplog.text
    assert f"Continuing from checkpoint {kept[0].parent}: epoch 2," in capsys.readouterr().err


def test_nothing_stays_of_a_training_that_ends_before_its_first_checkpoint(
    digits: tuple[object, ...], checkpoints: Path
) -> None:
    with pytest.raises(StoppedError):
        _train(digits, stop_after=1, checkpoint_seconds=1000.0)
    assert not list(checkpoints.iterdir())


def test_another_setting_never_continues_it(digits: tuple[object, ...], checkpoints: Path) -> None:
    _interrupt(digits)
    before = {path.name for path in checkpoints.iterdir()}
    expected = _train(digits, learning_rate=1e-3, resident_mb=0)
    assert {path.name for path in checkpoints.iterdir()} == before
    assert len(expected.history) == 3
    # Where the images lie changes no weight: this continues what was interrupted.
    seen: list[int] = []
    config = CONFIG.model_copy(update={"resident_mb": 0})
    train(*digits, MODEL, config, lambda epoch, _m: seen.append(epoch))  # type: ignore[arg-type]
    assert seen == [3]
