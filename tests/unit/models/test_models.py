"""Every model keeps the same promises, whatever package it comes from."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from cv_factory.config.data import DataConfig
from cv_factory.config.model import ModelConfig
from cv_factory.config.model_section import BackboneSection
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import PCAConfig, TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.ingest import ingest
from cv_factory.data.split import Split, split_dataset
from cv_factory.errors import ConfigError, TrainingError
from cv_factory.export.onnx_graph import export_predictor
from cv_factory.inference.predictor import Predictor
from cv_factory.models import check_available, new_network
from cv_factory.models.efficientnet_lite0 import EfficientNetLite0Config
from cv_factory.models.lightgbm import LightGBMConfig
from cv_factory.models.logistic_regression import LogisticRegressionConfig
from cv_factory.models.mlp import MLPConfig
from cv_factory.models.mobilenet_v2 import MobileNetV2Config
from cv_factory.models.random_forest import RandomForestConfig
from cv_factory.models.resnet18 import ResNet18Config
from cv_factory.models.small_cnn import SmallCNNConfig
from cv_factory.models.torchvision import TorchvisionModelConfig
from cv_factory.models.whitened_cnn import WhitenedCNNConfig
from cv_factory.models.xgboost import XGBoostConfig
from cv_factory.training.train import train
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.embedding import check_installed
from cv_factory.transforms.fitted import FittedTransform, fit_transform
from cv_factory.transforms.normalize import normalize
from tests.support.images import encode

MODELS: list[ModelConfig] = [
    SmallCNNConfig(channels=[8, 16]),
    WhitenedCNNConfig(channels=[16]),
    ResNet18Config(small_stem=True),
    MobileNetV2Config(dropout=0.1),
    TorchvisionModelConfig(architecture="squeezenet1_1", input_size=32, freeze_backbone=True),
    EfficientNetLite0Config(input_size=32, freeze_backbone=True),
    LogisticRegressionConfig(),
    RandomForestConfig(n_estimators=20),
    XGBoostConfig(n_estimators=10),
    LightGBMConfig(n_estimators=10, min_child_samples=2),
    MLPConfig(hidden=[16]),
]


#: In the order of the labels; written to disk in another one.
CLASSES = ("brick", "grass", "rope", "stone")


@dataclass(frozen=True)
class Case:
    """Image files of classes that show: each has its own texture and brightness, in noise."""

    dataset: ImageDataset
    split: Split
    transform: FittedTransform

    def train(self, model: ModelConfig) -> TrainedModel:
        defaults = {"epochs": 4, "batch_size": 16, "crop_padding": 0, "learning_rate": 4e-3}
        config = TrainConfig.model_validate({**defaults, **_settings(model)})
        return train(self.dataset, self.split, self.transform, model, config)

    def export(self, trained: TrainedModel) -> Predictor:
        fingerprints = {"data": self.dataset.fingerprint}
        return export_predictor(
            trained, self.transform, fingerprints, self.dataset, self.split.validation
        )


def _settings(model: ModelConfig) -> dict[str, object]:
    """Return what the slower networks need to learn something in few steps."""
    match model:
        case MobileNetV2Config():
            return {"epochs": 6, "batch_size": 32}
        case BackboneSection(freeze_backbone=True):
            return {"learning_rate": 3e-2}
        case BackboneSection():
            return {"epochs": 3}
        case _:
            return {}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("textures")
    rng = np.random.default_rng(0)
    for name in ("stone", "brick", "rope", "grass"):
        texture = np.tile(rng.integers(0, 2, (4, 4), dtype=np.uint8), (3, 3))
        brightness = 30 + 30 * CLASSES.index(name)
        (folder / name).mkdir()
        for number in range(40):
            pixels = brightness * texture + rng.integers(0, 60, (12, 12), dtype=np.uint8)
            (folder / name / f"{number}.png").write_bytes(encode(Image.fromarray(pixels)))
    dataset = ingest(DataConfig(source="folder", path=str(folder)))
    split = split_dataset(dataset, SplitConfig())
    config = TransformConfig(pca=PCAConfig(n_components=12))
    return Case(dataset, split, fit_transform(dataset, split.train, config))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(m, id=m.name, marks=[pytest.mark.slow] * isinstance(m, BackboneSection))
        for m in MODELS
    ],
)
def trained(request: pytest.FixtureRequest, case: Case) -> TrainedModel:
    return case.train(request.param)


@pytest.fixture(scope="module")
def predictor(trained: TrainedModel, case: Case) -> Predictor:
    return case.export(trained)


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


def test_each_class_answers_in_its_own_column(
    predictor: Predictor, trained: TrainedModel, case: Case
) -> None:
    assert predictor.contract.class_names == CLASSES
    if isinstance(trained.config, MobileNetV2Config):
        # The running statistics of its 52 batch normalizations need hundreds of steps.
        first, last = (trained.history[epoch]["train_loss"] for epoch in (0, -1))
        assert last < first
        return
    test = case.split.test
    folders = [Path(source).parent.name for source in case.dataset.manifest["source"].iloc[test]]
    columns = predictor.predict(case.dataset.images[test]).probabilities.argmax(axis=1)
    named = [CLASSES[column] for column in columns]
    for name in CLASSES:
        of_class = [answer for answer, folder in zip(named, folders, strict=True) if folder == name]
        assert of_class.count(name) > 0.5 * len(of_class), f"{name}: {of_class}"


def test_training_twice_gives_the_same_model(trained: TrainedModel, case: Case) -> None:
    assert case.train(trained.config).fingerprint == trained.fingerprint


def test_exporting_twice_gives_the_same_bytes(
    predictor: Predictor, trained: TrainedModel, case: Case, tmp_path: Path
) -> None:
    if isinstance(trained.config, BackboneSection):
        return  # the exporter of the other networks, at ten times the cost
    for name, one in (("a", predictor), ("b", case.export(trained))):
        (tmp_path / name).mkdir()
        one.save(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["contract.json", "golden.npz", "predictor.onnx"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_both_are_read_back(predictor: Predictor, trained: TrainedModel, tmp_path: Path) -> None:
    for artifact in (trained, predictor):
        directory = tmp_path / type(artifact).__name__
        directory.mkdir()
        artifact.save(directory)
        assert type(artifact).load(directory).fingerprint == artifact.fingerprint
    loaded = Predictor.load(tmp_path / "Predictor")
    golden = loaded.golden
    np.testing.assert_array_equal(loaded.predict(golden.images).probabilities, golden.probabilities)


def test_the_graph_names_no_place_and_no_time(predictor: Predictor) -> None:
    graph = onnx.load_model_from_string(predictor.graph)
    for tensor in graph.graph.initializer:
        tensor.ClearField("raw_data")  # any three bytes may stand among the weights
    for word in (b"site-packages", b".py", b"/home", b"torch.onnx"):
        assert word not in graph.SerializeToString()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            TorchvisionModelConfig(architecture="resnet17"),
            r"model\.architecture: torchvision has .* 'resnet17'\. Did you mean 'resnet1\d+'",
        ),
        (
            ResNet18Config(weights="IMAGENET1K_V2"),
            r"model\.weights: resnet18 has no weights .* Did you mean 'IMAGENET1K_V1'",
        ),
    ],
)
def test_an_unknown_architecture_is_refused_with_the_nearest_one(
    model: ModelConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_available(model)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"efficientnet_lite0 needs .* make setup"):
        check_available(EfficientNetLite0Config())
    with pytest.raises(ConfigError, match=r"transform\.umap needs umap-learn.*'backbones'"):
        check_installed()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (TorchvisionModelConfig(architecture="alexnet"), r"12x12 do not suit alexnet .*input_size"),
        (TorchvisionModelConfig(architecture="vit_b_16"), r"12x12 do not suit vit_b_16"),
        (WhitenedCNNConfig(channels=[16, 16, 16, 16, 16]), r"model\.channels has 5 blocks"),
    ],
)
def test_images_too_small_for_a_network_are_refused(
    model: ModelConfig, message: str, case: Case
) -> None:
    with pytest.raises(TrainingError, match=message):
        new_network(model, case.transform)


@pytest.mark.parametrize("model", [LogisticRegressionConfig(), SmallCNNConfig()])
def test_a_head_that_does_not_fit_the_labels_is_refused(model: ModelConfig, case: Case) -> None:
    train_part = case.split.train[case.dataset.labels[case.split.train] != 2]
    without = replace(case, split=replace(case.split, train=train_part))
    with pytest.raises(
        TrainingError, match=r"4 classes, .* of class rope\. Lower split\.validation"
    ):
        without.train(model)
    wrong = replace(case.transform, class_names=("brick", "grass"))
    with pytest.raises(TrainingError, match=r"fitted for the classes brick, grass, the dataset"):
        replace(case, transform=wrong).train(model)


def test_the_first_layer_of_whitened_cnn_whitens(case: Case) -> None:
    import torch

    network = new_network(WhitenedCNNConfig(channels=[16], stride=1), case.transform)
    images = normalize(case.dataset.images[case.split.train], case.transform.normalization)
    n = len(case.transform.patches.components)
    inner = network.get_submodule("whitening")(torch.from_numpy(images))[:, :, 1:-1, 1:-1]
    responses = inner[:, :n].transpose(0, 1).flatten(1)
    covariance = torch.cov(responses).numpy()
    assert np.abs(np.diag(covariance)[:4] - 1).max() < 0.02
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.02
    np.testing.assert_allclose(inner[:, n:].numpy(), -inner[:, :n].numpy(), atol=1e-5)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"whitening.weight", "whitening.bias"}


def test_pretrained_weights_see_the_pixels_they_were_trained_on(case: Case) -> None:
    import torch

    config = EfficientNetLite0Config(input_size=None)
    network = new_network(config, case.transform)
    seen: list[torch.Tensor] = []
    network.get_submodule("backbone").register_forward_pre_hook(lambda _m, x: seen.append(x[0]))
    images = case.dataset.images[:2]
    network.eval()(torch.from_numpy(normalize(images, case.transform.normalization)))
    expected = (images.astype(np.float32) - 127) / 128
    for channel in range(3):
        np.testing.assert_allclose(seen[0][:, channel], expected[..., 0], atol=1e-4)


def test_downloaded_weights_are_loaded_and_a_missing_file_is_named(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    config = TorchvisionModelConfig(
        architecture="squeezenet1_1", weights="IMAGENET1K_V1", input_size=32
    )
    with pytest.raises(TrainingError, match=r"squeezenet1_1.*\.pth cannot be downloaded"):
        new_network(config, case.transform)
    original = torchvision.models.squeezenet1_1(weights=None)
    file = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(original.state_dict(), tmp_path / "hub" / "checkpoints" / file)
    loaded = new_network(config, case.transform).get_submodule("backbone").state_dict()
    assert loaded
    for name, tensor in loaded.items():
        torch.testing.assert_close(tensor, original.state_dict()[name])
