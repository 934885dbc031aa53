"""Several processes that train one network: equal results, and one failure message."""

import json
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cv_factory.config.train import TrainConfig
from cv_factory.errors import TrainingError
from cv_factory.models.small_cnn import SmallCNNConfig
from cv_factory.processes.polling import poll_until
from cv_factory.training.callbacks import EpochCallback
from cv_factory.training.checkpoint import DIRECTORY_VARIABLE
from cv_factory.training.distributed.cluster_environment import Nodes, detect_nodes, expand_hosts
from cv_factory.training.trained_model import TrainedModel
from tests.support.digits import load_digits

CONFIG = TrainConfig(epochs=2, batch_size=33, crop_padding=1, precision="fp32", device="cpu")

_SECOND_OF_TWO = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}

#: What rank 1 runs first: once, it fails in its third epoch.
_FAILURE_IN_EPOCH_3 = """\
import os, pathlib
marker = pathlib.Path(__file__).with_name("fail")
if os.environ.get("RANK") == "1" and marker.exists():
    marker.unlink()
    from cv_factory.training.batches import ResidentImages
    batches, calls = ResidentImages.batches, []
    def fail(self, positions):
        calls.append(1)
        if len(calls) == 5:  # training and validation images are read once an epoch
            raise OSError("the disk is on fire")
        return batches(self, positions)
    ResidentImages.batches = fail
"""


def train_with(on_epoch: EpochCallback = lambda *_: None, **settings: object) -> TrainedModel:
    config = TrainConfig.model_validate({**CONFIG.model_dump(), **settings})
    return load_digits(400).train(SmallCNNConfig(channels=[4, 8]), config, on_epoch)


@pytest.mark.slow
def test_two_processes_resume_after_a_failure_and_match_one_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "epochs": 3,
        "accumulate": 2,
        "class_weights": "balanced",
        "clip_norm": 1.0,
    }
    alone = train_with(**settings)
    (tmp_path / "fail").touch()
    (tmp_path / "sitecustomize.py").write_text(_FAILURE_IN_EPOCH_3)
    monkeypatch.syspath_prepend(str(tmp_path))
    checkpoints = tmp_path / "checkpoints"
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(checkpoints))
    settings |= {"processes": 2, "checkpoint_seconds": 0.0}
    epochs: list[int] = []

    def on_epoch(epoch: int, _metrics: dict[str, float]) -> None:
        epochs.append(epoch)

    with pytest.raises(TrainingError, match=r"(?s)Rank 1 of 2 failed:.*the disk is on fire"):
        train_with(on_epoch, **settings)
    assert epochs == [1, 2]
    resumed = train_with(on_epoch, **settings)
    assert epochs[2] in (2, 3), "resumed from a checkpoint"
    assert not list(checkpoints.iterdir())
    assert resumed.best_epoch == alone.best_epoch
    for one, other in zip(alone.history, resumed.history, strict=True):
        assert other == pytest.approx(one, rel=1e-3)
    np.testing.assert_allclose(
        resumed.reference.probabilities, alone.reference.probabilities, atol=2e-3
    )


@pytest.mark.slow
def test_a_killed_rank_ends_the_training_and_the_others() -> None:
    ranks: list[psutil.Process] = []

    def second_rank_runs() -> bool:
        started: dict[str, psutil.Process] = {}
        for child in psutil.Process().children():
            with suppress(psutil.Error):  # some other child has just ended
                started[child.environ().get("RANK", "")] = child
        if "1" in started:
            ranks.extend(process for rank, process in started.items() if rank)
            started["1"].send_signal(signal.SIGKILL)
        return "1" in started

    killer = threading.Thread(target=poll_until, args=(second_rank_runs, 60))
    killer.start()
    with pytest.raises(TrainingError, match=r"Rank 1 of 2 was killed by SIGKILL"):
        train_with(epochs=10_000, processes=2)
    killer.join()
    assert ranks
    gone, alive = psutil.wait_procs(ranks, timeout=10)
    assert len(gone) >= 1
    assert not alive


def test_the_step_runs_on_the_first_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _SECOND_OF_TWO.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match="This is machine 1 of 2, counted from 0"):
        train_with()


def test_a_batch_too_small_for_the_processes_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"train\.batch_size is 4, which 4 processes"):
        train_with(batch_size=4, processes=4)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Nodes()),
        ({"SM_HOSTS": '["algo-1"]', "SM_CURRENT_HOST": "algo-1"}, Nodes()),
        (
            {"SM_HOSTS": '["algo-2", "algo-1"]', "SM_CURRENT_HOST": "algo-2"},
            Nodes(2, 1, "algo-1", 29_400),
        ),
        (
            {
                "SLURM_JOB_NUM_NODES": "3",
                "SLURM_JOB_NODELIST": "gpu[07-08,11]",
                "SLURM_NODEID": "2",
                "SLURM_JOB_ID": "10042",
            },
            Nodes(3, 2, "gpu07", 29_442),
        ),
        (
            _SECOND_OF_TWO,
            Nodes(2, 1, "10.0.0.1", 29_501),
        ),
    ],
)
def test_machines_are_detected_from_the_environment(
    environment: dict[str, str], expected: Nodes
) -> None:
    assert detect_nodes(environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_PORT"),
        ({"SM_HOSTS": "[", "SM_CURRENT_HOST": "a"}, "incompletely"),
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8"}, "--nproc-per-node 1"),
    ],
)
def test_an_incomplete_environment_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        detect_nodes(environment)


def test_lists_of_hosts_are_expanded() -> None:
    assert expand_hosts("a,b[1-2]x,c[09-10,3]") == ["a", "b1x", "b2x", "c09", "c10", "c3"]
    assert json.dumps(expand_hosts("vm")) == '["vm"]'
