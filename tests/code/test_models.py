"""Every model keeps the same promises, whatever package it comes from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cv_factory.config import (
    DataConfig,
    EfficientNetLite0Config,
    LightGBMConfig,
    LogisticRegressionConfig,
    MLPConfig,
    MobileNetV2Config,
    ModelConfig,
    PCAConfig,
    RandomForestConfig,
    ResNet18Config,
    SmallCNNConfig,
    SplitConfig,
    TorchvisionModelConfig,
    TrainConfig,
    TransformConfig,
    WhitenedCNNConfig,
    XGBoostConfig,
)
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.ingest import ingest
from cv_factory.data.split import Split, split_dataset
from cv_factory.inference.predictor import Predictor
from cv_factory.training.export import export_predictor
from cv_factory.training.train import train
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import FittedTransform, fit_transform

MODELS: list[ModelConfig] = [
    SmallCNNConfig(channels=[8, 16]),
    WhitenedCNNConfig(channels=[16]),
    ResNet18Config(small_stem=True),
    MobileNetV2Config(dropout=0.1),
    TorchvisionModelConfig(architecture="shufflenet_v2_x0_5", input_size=32),
    EfficientNetLite0Config(input_size=32, freeze_backbone=True),
    LogisticRegressionConfig(),
    RandomForestConfig(n_estimators=20),
    XGBoostConfig(n_estimators=10),
    LightGBMConfig(n_estimators=10, min_child_samples=2),
    MLPConfig(hidden=[16]),
]


@dataclass(frozen=True)
class Case:
    """Images whose class shows: each has its own texture, in noise."""

    dataset: ImageDataset
    split: Split
    transform: FittedTransform

    def train(self, model: ModelConfig) -> TrainedModel:
        config = TrainConfig(epochs=4, batch_size=16, crop_padding=0, learning_rate=4e-3)
        return train(self.dataset, self.split, self.transform, model, config)


@pytest.fixture(scope="module")
def case() -> Case:
    digits = ingest(DataConfig(limit=240))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (len(digits), 12, 12, 1), dtype=np.uint8)
    textures = np.tile(rng.integers(0, 2, (10, 4, 4, 1), dtype=np.uint8), (1, 3, 3, 1))
    images += 190 * textures[digits.labels]
    dataset = ImageDataset(images, digits.manifest, digits.class_names, "textures")
    split = split_dataset(dataset, SplitConfig())
    config = TransformConfig(pca=PCAConfig(n_components=12))
    return Case(dataset, split, fit_transform(dataset, split.train, config))


@pytest.fixture(scope="module", params=MODELS, ids=lambda m: m.name)
def trained(request: pytest.FixtureRequest, case: Case) -> TrainedModel:
    return case.train(request.param)


@pytest.fixture(scope="module")
def predictor(trained: TrainedModel, case: Case) -> Predictor:
    return export_predictor(trained, case.transform, {})


def test_the_predictor_answers_as_the_live_model_did(
    predictor: Predictor, trained: TrainedModel
) -> None:
    answered = predictor.predict(trained.reference.images)
    np.testing.assert_allclose(answered.probabilities, trained.reference.probabilities, atol=1e-4)
    np.testing.assert_allclose(answered.probabilities.sum(axis=1), 1, atol=1e-5)


def test_an_answer_does_not_depend_on_the_batch(predictor: Predictor, case: Case) -> None:
    images = case.dataset.images[:70]
    together = predictor.predict(images).probabilities
    alone = np.concatenate([predictor.predict(images[i : i + 1]).probabilities for i in range(5)])
    np.testing.assert_allclose(together[:5], alone, atol=1e-5)


def test_columns_stand_in_the_order_of_the_classes(predictor: Predictor, case: Case) -> None:
    test = case.split.test
    predicted = predictor.predict(case.dataset.images[test]).probabilities.argmax(axis=1)
    assert (predicted == case.dataset.labels[test]).mean() > 0.7
    assert predictor.contract.class_names == case.dataset.class_names


def test_training_twice_gives_the_same_model(trained: TrainedModel, case: Case) -> None:
    assert case.train(trained.config).fingerprint == trained.fingerprint


def test_it_is_read_back(trained: TrainedModel, tmp_path: Path) -> None:
    trained.save(tmp_path)
    assert TrainedModel.load(tmp_path).fingerprint == trained.fingerprint
