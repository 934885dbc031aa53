"""Training and export of digits: what is told and kept, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cv_factory.config.data import DataConfig
from cv_factory.config.model import ModelConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import PCAConfig, TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.ingest import ingest
from cv_factory.data.split import split_dataset
from cv_factory.errors import ArtifactError, ExportError, TrainingError
from cv_factory.export.onnx_graph import export_predictor
from cv_factory.inference.predictor import Predictor
from cv_factory.models.logistic_regression import LogisticRegressionConfig
from cv_factory.models.small_cnn import SmallCNNConfig
from cv_factory.training.train import EpochCallback, train
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import fit_transform

SMALL = SmallCNNConfig(channels=[8, 8, 16])
QUICK = TrainConfig(epochs=5, batch_size=64, crop_padding=1)


class Case:
    """Digits, split and transformed."""

    def __init__(self, **data: object) -> None:
        self.dataset = ingest(DataConfig.model_validate(data))
        self.split = split_dataset(self.dataset, SplitConfig())
        config = TransformConfig(pca=PCAConfig(n_components=16))
        self.transform = fit_transform(self.dataset, self.split.train, config)

    def train(
        self,
        model: ModelConfig,
        config: TrainConfig = QUICK,
        on_epoch: EpochCallback = lambda _epoch, _metrics: None,
    ) -> TrainedModel:
        return train(self.dataset, self.split, self.transform, model, config, on_epoch)


@pytest.fixture(scope="module")
def digits() -> Case:
    return Case()


#: Epochs and their metrics, as training told them.
Told = list[tuple[int, dict[str, float]]]


@pytest.fixture(scope="module")
def told_and_trained(digits: Case) -> tuple[Told, TrainedModel]:
    told: Told = []
    trained = digits.train(SMALL, on_epoch=lambda epoch, metrics: told.append((epoch, metrics)))
    return told, trained


@pytest.fixture(scope="module")
def trained(told_and_trained: tuple[Told, TrainedModel]) -> TrainedModel:
    return told_and_trained[1]


@pytest.fixture(scope="module")
def predictor(trained: TrainedModel, digits: Case) -> Predictor:
    return export_predictor(trained, digits.transform, {})


def test_its_features_are_the_transform_s(predictor: Predictor, digits: Case) -> None:
    from cv_factory.transforms.pca import project

    images = digits.dataset.images[:50]
    expected = project(images, digits.transform.pca)
    np.testing.assert_allclose(predictor.predict(images).features, expected, atol=1e-4)


def test_a_graph_that_is_none_is_refused(predictor: Predictor) -> None:
    broken = replace(predictor, graph=b"\x80\x04\x95junk")
    with pytest.raises(ArtifactError, match="not valid ONNX"):
        broken.predict(predictor.golden.images)


def test_an_exchanged_graph_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    predictor.save(tmp_path)
    (tmp_path / "predictor.onnx").write_bytes(predictor.graph[:-1] + b"\x00")
    with pytest.raises(ArtifactError, match=r"predictor\.onnx does not match its checksum"):
        Predictor.load(tmp_path)


@pytest.mark.parametrize("shape", [(2, 9, 8, 1), (2, 8, 8, 3), (8, 8, 1)])
def test_images_of_another_shape_are_refused(predictor: Predictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected uint8 images"):
        predictor.predict(np.zeros(shape, np.uint8))


def test_an_export_that_differs_from_the_live_model_is_refused(digits: Case) -> None:
    trained = digits.train(LogisticRegressionConfig())
    wrong = trained.reference.probabilities.copy()
    wrong[3, 4] += 2e-4
    changed = replace(trained, reference=replace(trained.reference, probabilities=wrong))
    with pytest.raises(ExportError, match=r"differs from the trained model by 2\.0"):
        export_predictor(changed, digits.transform, {})
    wrong[3, 4] = np.nan
    with pytest.raises(ExportError, match="nan"):
        export_predictor(changed, digits.transform, {})


def test_large_colour_images_go_through_the_whole_graph() -> None:
    rng = np.random.default_rng(0)
    case = Case(limit=300)
    images = rng.integers(0, 256, (300, 66, 70, 3), dtype=np.uint8)
    dataset = ImageDataset(images, case.dataset.manifest, case.dataset.class_names, "noise")
    split = split_dataset(dataset, SplitConfig())
    transform = fit_transform(dataset, split.train, TransformConfig(pca=PCAConfig(n_components=8)))
    assert transform.pca.pool > 1
    models: list[ModelConfig] = [SMALL, LogisticRegressionConfig()]
    for model in models:
        trained = train(dataset, split, transform, model, QUICK.model_copy(update={"epochs": 1}))
        export_predictor(trained, transform, {})


def test_bf16_trains_and_exports(digits: Case) -> None:
    settings = {"precision": "bf16", "horizontal_flip": True, "epochs": 1}
    config = QUICK.model_copy(update=settings)
    trained = digits.train(SMALL, config)
    export_predictor(trained, digits.transform, {})
    assert all(v.dtype != np.uint16 for v in trained.weights.values())


def test_the_best_epoch_is_kept(trained: TrainedModel, predictor: Predictor, digits: Case) -> None:
    accuracies = [row["validation_accuracy"] for row in trained.history]
    assert accuracies[trained.best_epoch - 1] == max(accuracies)
    images = digits.dataset.images[digits.split.validation]
    hits = predictor.predict(images).probabilities.argmax(axis=1)
    expected = (hits == digits.dataset.labels[digits.split.validation]).mean()
    assert accuracies[trained.best_epoch - 1] == pytest.approx(expected, abs=1e-6)


def test_every_epoch_is_reported(told_and_trained: tuple[Told, TrainedModel]) -> None:
    told, _ = told_and_trained
    assert [epoch for epoch, _ in told] == [1, 2, 3, 4, 5]
    learned = {"train_loss", "validation_loss", "validation_accuracy", "learning_rate"}
    measured = {"seconds", "images_per_second", "system_cpu_percent", "system_rss_mb"}
    assert set(told[0][1]) >= learned | measured
    assert told[0][1]["system_rss_mb"] > 10
    assert told[-1][1]["learning_rate"] < told[0][1]["learning_rate"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 5000}, r"train\.batch_size is 5000"),
        ({"crop_padding": 8}, r"train\.crop_padding is 8"),
        ({"learning_rate": 10.0, "epochs": 30}, "not a number from epoch"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    digits: Case, settings: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "learning_rate" in settings:
        import torch

        from cv_factory.training import trainer

        monkeypatch.setattr(
            trainer, "cross_entropy", lambda x, y, **_: x.sum() * torch.tensor(float("nan"))
        )
    with pytest.raises(TrainingError, match=message):
        digits.train(SMALL, QUICK.model_copy(update=settings))


def test_a_split_of_another_dataset_is_refused(digits: Case) -> None:
    other = replace(digits.split, dataset_fingerprint="0" * 64)
    with pytest.raises(TrainingError, match="split was made for another dataset"):
        train(digits.dataset, other, digits.transform, SMALL, QUICK)


def test_the_test_split_is_not_looked_at(trained: TrainedModel, digits: Case) -> None:
    images = np.array(digits.dataset.images)
    images[digits.split.test] = 0
    blinded = replace(digits.dataset, images=images, backing=None)
    fitted = fit_transform(
        blinded, digits.split.train, TransformConfig(pca=PCAConfig(n_components=16))
    )
    one = train(blinded, digits.split, fitted, SMALL, QUICK)
    assert one.fingerprint == trained.fingerprint
