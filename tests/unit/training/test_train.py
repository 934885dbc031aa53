"""Training and export of digits: reports, the best epoch, parity, and refused inputs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cv_factory.config.model import ModelConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import PCAConfig, TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import split_dataset
from cv_factory.errors import ArtifactError, ExportError, TrainingError
from cv_factory.export.onnx_graph import export_predictor
from cv_factory.inference.predictor import Predictor
from cv_factory.models.logistic_regression import LogisticRegressionConfig
from cv_factory.models.small_cnn import SmallCNNConfig
from cv_factory.training.train import train
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import fit_transform
from tests.support.digits import Digits, load_digits

SMALL = SmallCNNConfig(channels=[8, 8, 16])
QUICK = TrainConfig(epochs=5, batch_size=64, crop_padding=1)


#: Epochs and their metrics, as reported by the callback.
EpochReports = list[tuple[int, dict[str, float]]]


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits(n_components=16)


@pytest.fixture(scope="module")
def reports_and_model(digits: Digits) -> tuple[EpochReports, TrainedModel]:
    reports: EpochReports = []
    trained = digits.train(SMALL, QUICK, lambda epoch, metrics: reports.append((epoch, metrics)))
    return reports, trained


@pytest.fixture(scope="module")
def trained(reports_and_model: tuple[EpochReports, TrainedModel]) -> TrainedModel:
    return reports_and_model[1]


@pytest.fixture(scope="module")
def predictor(trained: TrainedModel, digits: Digits) -> Predictor:
    return digits.export(trained)


def test_features_match_the_transform(predictor: Predictor, digits: Digits) -> None:
    from cv_factory.transforms.pca import project

    images = digits.dataset.images[:50]
    expected = project(images, digits.transform.pca)
    np.testing.assert_allclose(predictor.predict(images).features, expected, atol=1e-4)


def test_an_invalid_graph_is_refused(predictor: Predictor) -> None:
    broken = replace(predictor, graph=b"\x80\x04\x95junk")
    with pytest.raises(ArtifactError, match="not valid ONNX"):
        broken.predict(predictor.golden.images)


def test_a_changed_graph_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    predictor.save(tmp_path)
    (tmp_path / "predictor.onnx").write_bytes(predictor.graph[:-1] + b"\x00")
    with pytest.raises(ArtifactError, match=r"predictor\.onnx does not match its checksum"):
        Predictor.load(tmp_path)


@pytest.mark.parametrize("shape", [(2, 9, 8, 1), (2, 8, 8, 3), (8, 8, 1)])
def test_images_of_another_shape_are_refused(predictor: Predictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected uint8 images"):
        predictor.predict(np.zeros(shape, np.uint8))


def test_an_export_that_differs_from_the_live_model_is_refused(digits: Digits) -> None:
    trained = digits.train(LogisticRegressionConfig(), QUICK)
    wrong = trained.reference.probabilities.copy()
    wrong[3, 4] += 2e-4
    changed = replace(trained, reference=replace(trained.reference, probabilities=wrong))
    with pytest.raises(ExportError, match=r"differs from the trained model by 2\.0"):
        digits.export(changed)
    wrong[3, 4] = np.nan
    with pytest.raises(ExportError, match="nan"):
        digits.export(changed)


@pytest.mark.slow
def test_large_color_images_go_through_the_whole_graph() -> None:
    rng = np.random.default_rng(0)
    manifest, names = load_digits(300).dataset.manifest, load_digits(300).dataset.class_names
    images = rng.integers(0, 256, (300, 66, 70, 3), dtype=np.uint8)
    dataset = ImageDataset(images, manifest, names, "noise")
    split = split_dataset(dataset, SplitConfig())
    transform = fit_transform(dataset, split.train, TransformConfig(pca=PCAConfig(n_components=8)))
    assert transform.pca.pool > 1
    models: list[ModelConfig] = [SMALL, LogisticRegressionConfig()]
    for model in models:
        trained = train(dataset, split, transform, model, QUICK.model_copy(update={"epochs": 1}))
        export_predictor(trained, transform, {}, dataset, split.validation)


def test_bf16_trains_and_exports(digits: Digits) -> None:
    settings = {"precision": "bf16", "horizontal_flip": True, "epochs": 1}
    config = QUICK.model_copy(update=settings)
    trained = digits.train(SMALL, config)
    digits.export(trained)
    assert all(v.dtype != np.uint16 for v in trained.weights.values())


def test_the_best_epoch_is_kept(
    trained: TrainedModel, predictor: Predictor, digits: Digits
) -> None:
    accuracies = [row["validation_accuracy"] for row in trained.history]
    assert accuracies[trained.best_epoch - 1] == max(accuracies)
    images = digits.dataset.images[digits.split.validation]
    hits = predictor.predict(images).probabilities.argmax(axis=1)
    expected = (hits == digits.dataset.labels[digits.split.validation]).mean()
    assert accuracies[trained.best_epoch - 1] == pytest.approx(expected, abs=1e-6)


def test_every_epoch_is_reported(reports_and_model: tuple[EpochReports, TrainedModel]) -> None:
    reports, _ = reports_and_model
    assert [epoch for epoch, _ in reports] == [1, 2, 3, 4, 5]
    learned = {"train_loss", "validation_loss", "validation_accuracy", "learning_rate"}
    measured = {"seconds", "images_per_second", "system_cpu_percent", "system_rss_mb"}
    assert set(reports[0][1]) >= learned | measured
    assert reports[0][1]["system_rss_mb"] > 10
    assert reports[-1][1]["learning_rate"] < reports[0][1]["learning_rate"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 5000}, r"train\.batch_size is 5000"),
        ({"crop_padding": 8}, r"train\.crop_padding is 8"),
        ({"learning_rate": 10.0, "epochs": 30}, "not a number from epoch"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_named(
    digits: Digits, settings: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "learning_rate" in settings:
        import torch

        from cv_factory.training import trainer

        monkeypatch.setattr(
            trainer, "cross_entropy", lambda x, y, **_: x.sum() * torch.tensor(float("nan"))
        )
    with pytest.raises(TrainingError, match=message):
        digits.train(SMALL, QUICK.model_copy(update=settings))


def test_a_split_of_another_dataset_is_refused(digits: Digits) -> None:
    other = replace(digits.split, dataset_fingerprint="0" * 64)
    with pytest.raises(TrainingError, match="split was made for another dataset"):
        train(digits.dataset, other, digits.transform, SMALL, QUICK)


def test_the_test_split_is_not_used(trained: TrainedModel, digits: Digits) -> None:
    images = np.array(digits.dataset.images)
    images[digits.split.test] = 0
    blinded = replace(digits.dataset, images=images, backing=None)
    fitted = fit_transform(
        blinded, digits.split.train, TransformConfig(pca=PCAConfig(n_components=16))
    )
    one = train(blinded, digits.split, fitted, SMALL, QUICK)
    assert one.fingerprint == trained.fingerprint
