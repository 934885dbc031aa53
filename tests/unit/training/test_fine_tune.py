"""Fine-tuning of a backbone: it sees what the predictor sees, and the pretrained one competes."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

import cv_factory.features.export as export
import cv_factory.training.classical as classical
import cv_factory.training.fine_tune as fine_tune
from cv_factory.config.features import FeaturesConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split, split_dataset
from cv_factory.errors import TrainingError
from cv_factory.features.backbone import Backbone
from cv_factory.features.compute import compute_features
from cv_factory.features.image_features import ImageFeatures
from cv_factory.features.layers import NormalizedBackbone
from cv_factory.models import Examples
from cv_factory.models.logistic_regression import LogisticRegressionConfig
from cv_factory.training.optimization import apply_schedule, build_optimizer
from cv_factory.training.state_dicts import load_optimizer, optimizer_tensors
from cv_factory.training.train import train
from cv_factory.training.trainer import Trainer
from cv_factory.transforms.fitted import fit_transform
from cv_factory.transforms.normalize import Normalization
from tests.support.datasets import dataset_of
from tests.support.digits import load_digits
from tests.support.tiny_backbone import load_tiny_backbone

Integers = npt.NDArray[np.int64]

SIZE = 12
TRAIN = TrainConfig(device="cpu", crop_padding=0, batch_size=16, label_smoothing=0.0)


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (export, fine_tune):
            patch.setattr(module, "load_backbone", load_tiny_backbone)
        yield


@pytest.fixture(scope="module")
def backbone(tiny: None) -> Backbone:
    return export.export_backbone("tiny", SIZE)


@pytest.fixture(scope="module")
def digits() -> tuple[ImageDataset, Split]:
    dataset = load_digits(300).dataset
    return dataset, split_dataset(dataset, SplitConfig())


@pytest.fixture(scope="module")
def features(backbone: Backbone, digits: tuple[ImageDataset, Split]) -> ImageFeatures:
    return compute_features(digits[0], backbone, horizontal_flip=False)


def tune(digits: tuple[ImageDataset, Split], features: ImageFeatures, rate: float) -> Backbone:
    config = FeaturesConfig(fine_tune=8, fine_tune_learning_rate=rate)
    return fine_tune.fine_tune(*digits, features, config, TRAIN)


def test_the_best_epoch_becomes_a_backbone(
    digits: tuple[ImageDataset, Split], features: ImageFeatures
) -> None:
    tuned, pretrained = tune(digits, features, 0.02), features.backbone
    assert 1 <= tuned.fine_tuned_epochs <= 8
    assert tuned.fingerprint != pretrained.fingerprint
    assert tuned.fine_tuned_precision in ("fp32", "bf16"), "what auto stood for"
    assert tuned == replace(
        pretrained,
        graph=tuned.graph,
        fine_tuned_epochs=tuned.fine_tuned_epochs,
        fine_tuned_precision=tuned.fine_tuned_precision,
    )
    values = compute_features(digits[0], tuned, horizontal_flip=False).values
    assert np.abs(values - features.values).max() > 0.01


def test_a_backbone_that_no_epoch_improves_is_left_as_it_was(
    digits: tuple[ImageDataset, Split],
    features: ImageFeatures,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(fine_tune, "selection_key", lambda _metrics: (0.0, 0.0))
    assert tune(digits, features, 1e-6) is features.backbone
    assert "No epoch of fine-tuning is better" in caplog.text


def test_a_loss_that_is_no_number_names_the_setting(
    digits: tuple[ImageDataset, Split], features: ImageFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TrainingError("The loss is not a number. Lower train.learning_rate.")

    monkeypatch.setattr(Trainer, "run", fail)
    with pytest.raises(TrainingError, match=r"Lower features\.fine_tune_learning_rate\."):
        tune(digits, features, 0.1)


def test_other_weights_than_those_of_the_features_are_refused(
    digits: tuple[ImageDataset, Split], features: ImageFeatures
) -> None:
    changed = replace(features, backbone=replace(features.backbone, weights_sha256="1" * 64))
    with pytest.raises(TrainingError, match="computed with other weights of tiny"):
        tune(digits, changed, 0.1)


@pytest.mark.parametrize("shape", [(12, 12, 3), (8, 8, 1), (30, 20, 3), (6, 25, 1)])
def test_the_network_sees_what_the_predictor_sees(
    backbone: Backbone, shape: tuple[int, int, int]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    features = compute_features(dataset_of(images), backbone, horizontal_flip=False)
    rng = np.random.default_rng(1)
    mean, std = rng.uniform(0.2, 0.8, (2, shape[2])).astype(np.float32)
    network = make_network(Normalization(mean, std))
    with torch.inference_mode():
        normalized = torch.from_numpy((images / np.float32(255) - mean) / std)
        logits = network(normalized.permute(0, 3, 1, 2).float())
        expected = network.head(torch.from_numpy(np.array(features.values)))
    np.testing.assert_allclose(logits.numpy(), expected.numpy(), atol=1e-4)


def make_network(normalization: Normalization) -> fine_tune.FineTuningNetwork:
    pretrained = load_tiny_backbone()
    normalized = NormalizedBackbone(pretrained.network, pretrained.mean, pretrained.std)
    return fine_tune.FineTuningNetwork(normalized, normalization, SIZE, torch.nn.Linear(4, 2))


def test_lower_layers_have_lower_learning_rates() -> None:
    ones = np.ones(3, np.float32)
    network = make_network(Normalization(0 * ones, ones))
    groups = network.parameter_groups()
    parameters = [parameter for members, _ in groups for parameter in members]
    assert sorted(map(id, parameters)) == sorted(map(id, network.parameters()))
    config = TrainConfig(schedule="constant", warmup=0.0, learning_rate=0.1)
    optimizer = build_optimizer(network, config)
    assert apply_schedule(optimizer, config, 0, 10) == pytest.approx(0.1)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.1, 0.1 / 2.6, 0.1 / 2.6**2, 0.1 / 2.6**3])


def test_an_optimizer_of_several_groups_is_restored() -> None:
    ones = np.ones(3, np.float32)
    network = make_network(Normalization(0 * ones, ones))
    optimizer = build_optimizer(network, TRAIN)
    network(torch.randn(2, 3, SIZE, SIZE)).sum().backward()
    optimizer.step()
    state = {name: value.clone() for name, value in optimizer_tensors(optimizer).items()}
    other = build_optimizer(network, TRAIN)
    load_optimizer(other, state)
    restored = optimizer_tensors(other)
    assert state.keys() == restored.keys()
    assert all(torch.equal(state[name], restored[name]) for name in state)


@pytest.mark.parametrize(
    ("epochs", "n_validation", "part"),
    [(0, 118, "train"), (3, 118, "validation"), (3, 12, "train")],
)
def test_a_penalty_is_not_chosen_on_images_that_the_backbone_has_seen(
    digits: tuple[ImageDataset, Split],
    features: ImageFeatures,
    monkeypatch: pytest.MonkeyPatch,
    epochs: int,
    n_validation: int,
    part: str,
) -> None:
    counts = []

    def choose(_model: object, examples: Examples, groups: Integers) -> LogisticRegressionConfig:
        counts.append((len(examples.labels), len(groups)))
        return LogisticRegressionConfig(C=1.0)

    monkeypatch.setattr(classical, "choose_settings", choose)
    dataset, split = digits
    # Of some classes, a dozen digits have fewer images than there are folds.
    held_out = np.union1d(split.validation, split.test)
    split = replace(split, validation=held_out[:n_validation])
    tuned = replace(features, backbone=replace(features.backbone, fine_tuned_epochs=epochs))
    transform = fit_transform(dataset, split.train, TransformConfig(), tuned)
    train(dataset, split, transform, LogisticRegressionConfig(), TRAIN, features=tuned)
    n = len(getattr(split, part))
    assert counts == [(n, n)]
