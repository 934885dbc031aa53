"""Settings of the trainer: their effect on the weights, and refused values."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cv_factory.config.train import TrainConfig
from cv_factory.errors import TrainingError
from cv_factory.models.small_cnn import SmallCNNConfig
from cv_factory.training import device as device_module
from cv_factory.training import stability
from cv_factory.training.augment import augment, pad, sample_augmentation
from cv_factory.training.batches import StreamedImages
from cv_factory.training.class_weights import class_weights
from cv_factory.training.device import resolve_precision, select_device
from cv_factory.training.optimization import (
    apply_schedule,
    build_optimizer,
    learning_rate_factor,
)
from cv_factory.training.trained_model import TrainedModel
from cv_factory.training.training_job import TrainingJob
from tests.support.digits import load_digits

SMALL = SmallCNNConfig(channels=[4, 8])
BASE = {"epochs": 2, "batch_size": 32, "crop_padding": 1, "device": "cpu"}

Train = Callable[..., TrainedModel]


@pytest.fixture(scope="module")
def train_with() -> Train:
    def run(**settings: object) -> TrainedModel:
        return load_digits(300).train(SMALL, TrainConfig.model_validate({**BASE, **settings}))

    return run


@pytest.fixture(scope="module")
def plain(train_with: Train) -> TrainedModel:
    return train_with()


def test_an_unstable_training_is_logged(
    train_with: Train, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stability, "MAX_FALL", 0.0)
    with caplog.at_level(logging.WARNING):
        train_with()
    assert "the training is unstable" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "schedule": "linear", "learning_rate": 0.05},
        {"schedule": "cosine", "clip_norm": 0.5},
        {"schedule": "constant", "warmup": 0.0, "class_weights": "balanced"},
        {"ema_decay": 0.8},
        {"precision": "fp16", "horizontal_flip": True, "flip": "alternating"},
        {"cutout": 3, "accumulate": 4, "channels_last": False},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_a_setting_changes_the_weights_and_still_learns(
    train_with: Train, plain: TrainedModel, settings: dict[str, object]
) -> None:
    trained = train_with(**settings)
    assert trained.fingerprint != plain.fingerprint
    losses = [row["train_loss"] for row in trained.history]
    assert losses[-1] < losses[0]
    assert all(math.isfinite(row["validation_loss"]) for row in trained.history)


def test_streamed_images_give_the_same_bytes(train_with: Train, plain: TrainedModel) -> None:
    assert train_with(resident_mb=0).fingerprint == plain.fingerprint


def test_images_are_scored_in_batches_that_follow_the_training_batch(
    train_with: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, sizes = StreamedImages._load_batch, set()

    def counted(source: StreamedImages, positions: torch.Tensor, buffer: torch.Tensor) -> object:
        sizes.add(len(positions))
        return load(source, positions, buffer)

    monkeypatch.setattr(StreamedImages, "_load_batch", counted)
    train_with(resident_mb=0, batch_size=8, epochs=1)
    assert {8, 32} < sizes
    assert max(sizes) == 32, "a thousand large images would not fit into memory"


def test_early_stopping_ends_the_training(train_with: Train) -> None:
    # Nothing is learned, so that the first epoch stays the best.
    trained = train_with(
        epochs=40, early_stopping=2, learning_rate=1e-12, crop_padding=0, schedule="constant"
    )
    assert len(trained.history) == trained.best_epoch + 2


@pytest.mark.engines
def test_a_compiled_network_trains_alike(
    train_with: Train, plain: TrainedModel, engine: Callable[..., str]
) -> None:
    engine("g++", "clang++")
    compiled = train_with(compile=True)
    for one, other in zip(plain.history, compiled.history, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
    assert set(compiled.weights) == set(plain.weights)


def test_one_cycle_matches_torch() -> None:
    total = 40
    config = TrainConfig(learning_rate=0.01)
    ours, torchs = (
        build_optimizer(torch.nn.Linear(2, 2), config),
        build_optimizer(torch.nn.Linear(2, 2), config),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(torchs, max_lr=0.01, total_steps=total)
    for step in range(total):
        apply_schedule(ours, config, step, total)
        one, other = ours.param_groups[0], torchs.param_groups[0]
        assert one["lr"] == pytest.approx(other["lr"], rel=1e-9)
        assert one["betas"][0] == pytest.approx(other["betas"][0])
        torchs.step()
        schedule.step()


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_other_schedules_rise_and_fall(schedule: str) -> None:
    config = TrainConfig.model_validate({"schedule": schedule, "warmup": 0.25})
    shares = [learning_rate_factor(config, step, 100) for step in range(100)]
    assert 0 < shares[0] < 0.1
    assert shares.index(max(shares)) == 25
    assert max(shares) == 1
    assert shares[:26] == sorted(shares[:26])
    assert shares[25:] == sorted(shares[25:], reverse=True)
    assert 0 < shares[-1] < 0.02


def test_balanced_class_weights() -> None:
    labels = np.array([0] * 90 + [2] * 10)
    weights = class_weights(labels, 3, TrainConfig(class_weights="balanced"))
    assert weights is not None
    assert weights.tolist() == pytest.approx([100 / 270, 0, 100 / 30])
    assert class_weights(labels, 3, TrainConfig()) is None


def _augmented(epoch: int, **settings: object) -> tuple[torch.Tensor, torch.Tensor]:
    config = TrainConfig.model_validate({"crop_padding": 0, **settings})
    images = torch.arange(1, 201, dtype=torch.uint8).view(20, 2, 5, 1)
    params = sample_augmentation(config, torch.arange(20), (2, 5), epoch, 0)
    padded = pad(images, config.crop_padding)
    return images, augment(padded, params.select(slice(None), torch.device("cpu")), config)


def test_alternating_flips_mirror_each_image_every_second_epoch() -> None:
    settings = {"horizontal_flip": True, "flip": "alternating"}
    images, first = _augmented(1, **settings)
    _, second = _augmented(2, **settings)
    _, third = _augmented(3, **settings)
    assert torch.equal(first, third)
    flipped = (first != images).flatten(1).any(1)
    assert 0 < flipped.sum() < 20
    assert torch.equal((second != images).flatten(1).any(1), ~flipped)


def test_cut_out_pixels_are_a_square() -> None:
    images, changed = _augmented(1, cutout=1)
    assert ((images != changed).flatten(1).sum(1) == 1).all()
    _, changed = _augmented(1, cutout=2)
    lost = (images != changed).flatten(1).sum(1)
    assert lost.max() == 4
    assert lost.min() >= 1


def test_padding_repeats_the_border() -> None:
    images = torch.arange(2 * 3 * 5 * 2, dtype=torch.uint8).reshape(2, 3, 5, 2)
    rows, columns = torch.arange(-2, 5).clamp(0, 2), torch.arange(-2, 7).clamp(0, 4)
    assert torch.equal(pad(images, 2), images[:, rows][:, :, columns])


def test_crops_are_windows_of_the_padded_image() -> None:
    images, cropped = _augmented(1, crop_padding=1)
    padded = pad(images, 1)
    for original, crop in zip(padded, cropped, strict=True):
        windows = [original[y : y + 2, x : x + 5] for y in range(3) for x in range(3)]
        assert any(torch.equal(crop, window) for window in windows)
    assert not torch.equal(images, cropped)


def test_a_missing_gpu_is_refused(train_with: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=r"train\.device is cuda, but PyTorch sees no GPU"):
        train_with(device="cuda")
    assert select_device(TrainConfig(device="auto")).type == "cpu"


def test_an_unsupported_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("this CPU has no bf16")

    monkeypatch.setattr(torch.nn.Conv2d, "forward", refuse)
    with pytest.raises(
        TrainingError, match=r"train\.precision is bf16, which the CPU .* does not support"
    ):
        select_device(TrainConfig(precision="bf16", device="cpu"))


@pytest.mark.parametrize(
    ("flags", "side", "precision"),
    [
        ({"avx2", "avx512_bf16"}, 32, "bf16"),
        ({"amx_bf16"}, 16, "bf16"),
        ({"avx512_bf16"}, 8, "fp32"),
        ({"avx2", "avx512f"}, 32, "fp32"),
    ],
)
def test_automatic_precision_is_what_the_processor_computes_fast(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], side: int, precision: str
) -> None:
    monkeypatch.setattr(device_module, "read_cpu_flags", lambda: frozenset(flags))
    size, cpu = (64, side), torch.device("cpu")
    assert resolve_precision(TrainConfig(), cpu, size).precision == precision
    assert resolve_precision(TrainConfig(precision="fp16"), cpu, size).precision == "fp16"


@pytest.mark.parametrize(
    ("seconds", "warning"), [(7.3, "takes 7.3 times as long as with fp32"), (1.2, "")]
)
def test_a_slow_precision_is_named_with_its_ratio(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seconds: float,
    warning: str,
) -> None:
    times = iter([0.0, 1.0] * 5 + [0.0, seconds] * 5)
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    select_device(TrainConfig(precision="bf16", device="cpu"))
    assert warning in caplog.text
    assert bool(warning) == bool(caplog.text)


def test_compiling_without_a_compiler_is_refused(
    train_with: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TrainingError, match=r"train\.compile needs a C\+\+ compiler"):
        train_with(compile=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": 64, "batch_size": 32}, "accumulate is 64, but batch_size is only 32"),
        ({"flip": "alternating"}, "set horizontal_flip to true"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate(settings)


def test_a_cutout_larger_than_the_image_is_refused(train_with: Train) -> None:
    with pytest.raises(TrainingError, match=r"train\.cutout is 8 pixels, but images are only 8x8"):
        train_with(cutout=8)


def test_images_from_a_file_are_not_copied_for_other_processes(tmp_path: Path) -> None:
    digits = load_digits(300)
    dataset, split, transform = digits.dataset, digits.split, digits.transform
    np.save(tmp_path / "mapped.npy", dataset.images)
    mapped = replace(dataset, images=np.load(tmp_path / "mapped.npy", mmap_mode="r"))
    job = TrainingJob(
        mapped.images, dataset.labels, split.train, split.validation, mapped.images[:3],
        transform, SMALL, TrainConfig(),
    )  # fmt: skip
    (tmp_path / "job").mkdir()
    job.save(tmp_path / "job")
    assert (tmp_path / "job" / "images.npy").is_symlink()
    loaded = TrainingJob.load(tmp_path / "job")
    np.testing.assert_array_equal(loaded.images, dataset.images)
    assert loaded.transform.fingerprint == transform.fingerprint
    assert (loaded.model, loaded.config) == (job.model, job.config)
