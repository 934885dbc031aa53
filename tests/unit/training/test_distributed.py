"""Several processes that train one network: the same result as one, and an end where one dies."""

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from cv_factory.config.data import DataConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import PCAConfig, TransformConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.split import split_dataset
from cv_factory.errors import TrainingError
from cv_factory.models.small_cnn import SmallCNNConfig
from cv_factory.training.checkpoint import DIRECTORY_VARIABLE
from cv_factory.training.distributed.cluster_environment import Nodes, detect_nodes, expand_hosts
from cv_factory.training.train import train
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import fit_transform

SMALL = SmallCNNConfig(channels=[4, 8])
CONFIG = TrainConfig(epochs=2, batch_size=33, crop_padding=1, precision="fp32", device="cpu")

_SECOND_OF_TWO = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}

Train = Callable[..., TrainedModel]


@pytest.fixture(scope="module")
def train_with() -> Train:
    dataset = ingest(DataConfig(limit=400))
    split = split_dataset(dataset, SplitConfig())
    config = TransformConfig(pca=PCAConfig(n_components=4))
    transform = fit_transform(dataset, split.train, config)

    def run(**settings: object) -> TrainedModel:
        on_epoch = settings.pop("on_epoch", lambda *_: None)
        changed = TrainConfig.model_validate({**CONFIG.model_dump(), **settings})
        return train(dataset, split, transform, SMALL, changed, on_epoch)  # type: ignore[arg-type]

    return run


class StoppedError(Exception):
    """Ends a training from within, between two epochs."""


def test_two_processes_find_what_one_does_even_when_they_are_stopped(
    train_with: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[int] = []

    def stop(epoch: int, _metrics: dict[str, float]) -> None:
        told.append(epoch)
        if epoch == 2:
            raise StoppedError

    settings = {"epochs": 3, "accumulate": 2, "class_weights": "balanced", "clip_norm": 1.0}
    alone = train_with(**settings)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    settings |= {"processes": 2, "checkpoint_seconds": 0.0}
    with pytest.raises(StoppedError):
        train_with(**settings, on_epoch=stop)
    assert told == [1, 2]
    together = train_with(**settings, on_epoch=lambda epoch, _metrics: told.append(epoch))
    assert told[2] in (2, 3), "it went on where it was"
    assert not list(tmp_path.iterdir())
    assert together.best_epoch == alone.best_epoch
    for one, other in zip(alone.history, together.history, strict=True):
        assert other == pytest.approx(one, rel=1e-3)
    np.testing.assert_allclose(
        together.reference.probabilities, alone.reference.probabilities, atol=2e-3
    )


def test_a_rank_that_dies_ends_the_training_and_the_others(train_with: Train) -> None:
    killed: list[psutil.Process] = []
    ranks: list[psutil.Process] = []

    def kill_second() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            for child in psutil.Process().children():
                if child.environ().get("RANK") == "1":
                    ranks.extend(psutil.Process().children())
                    killed.append(child)
                    child.send_signal(signal.SIGKILL)
                    return
            threading.Event().wait(0.05)

    killer = threading.Thread(target=kill_second)
    killer.start()
    with pytest.raises(TrainingError, match=r"Rank 1 of 2 was killed by SIGKILL"):
        train_with(epochs=10_000, processes=2)
    killer.join()
    assert killed
    gone, alive = psutil.wait_procs(ranks, timeout=10)
    assert len(gone) >= 1
    assert not alive


def test_the_message_is_the_first_cause_with_its_traceback(
    train_with: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What a rank's Python runs first: the second of them fails inside its training.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from cv_factory.training.batches import ResidentImages\n"
        "    def fail(*_):\n"
        "        raise OSError('the disk is on fire')\n"
        "    ResidentImages.batches = fail\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TrainingError, match=r"(?s)Rank 1 of 2 failed:.*the disk is on fire"):
        train_with(processes=2)


def test_the_step_runs_on_the_first_machine_alone(
    train_with: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _SECOND_OF_TWO.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match="This is machine 1 of 2, counted from 0"):
        train_with()


def test_a_batch_too_small_for_the_processes_is_refused(train_with: Train) -> None:
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
def test_machines_are_read_off_the_environment(
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
