"""A small backbone of random weights, and a linear head on its features of digits."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from cv_factory.artifacts.onnx_graphs import set_versions
from cv_factory.config.split import SplitConfig
from cv_factory.config.transform import PCAConfig, TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split, split_dataset
from cv_factory.features.backbone import Backbone
from cv_factory.features.compute import compute_features
from cv_factory.features.image_features import ImageFeatures
from cv_factory.models.logistic_regression import LogisticRegressionConfig
from cv_factory.training.trained_model import Reference, TrainedModel
from cv_factory.transforms.fitted import FittedTransform, fit_transform
from tests.support.digits import load_digits

Floats = npt.NDArray[np.float32]
_RANDOM_BACKBONE = """
import torch

from cv_factory.features.backbones import PretrainedBackbone


def check_available(architecture):
    pass


def load(architecture, input_size):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 48, 7, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
    )
    return PretrainedBackbone(network, (127.0,) * 3, (128.0,) * 3, "0" * 64, "Apache-2.0")
"""


@dataclass(frozen=True)
class HeadOnFeatures:
    """A head that was fitted on features, with all that its export takes."""

    dataset: ImageDataset
    split: Split
    features: ImageFeatures
    transform: FittedTransform
    trained: TrainedModel


def make_backbone(input_size: int = 12, n_features: int = 24) -> Backbone:
    """Return a convolution, rectified and averaged over the image."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.01, (n_features, 3, 5, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["pixels", "weights"], ["convolved"], strides=[2, 2]),
        helper.make_node("Relu", ["convolved"], ["rectified"]),
        helper.make_node("GlobalAveragePool", ["rectified"], ["averaged"]),
        helper.make_node("Flatten", ["averaged"], ["backbone_features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "backbone",
        [_info("pixels", ["N", 3, input_size, input_size])],
        [_info("backbone_features", ["N", n_features])],
        [numpy_helper.from_array(weights, "weights")],
    )
    serialized = set_versions(helper.make_model(graph)).SerializeToString(deterministic=True)
    return Backbone(serialized, "random", input_size, n_features, "0" * 64, "Apache-2.0")


def write_random_backbone(project: Path) -> None:
    """Put a small backbone of random weights in the place of a project's EfficientNet-Lite0."""
    file = project / "cv_factory" / "features" / "backbones" / "efficientnet_lite0.py"
    file.write_text(_RANDOM_BACKBONE, encoding="utf-8")


@cache
def fit_head(n_images: int = 600) -> HeadOnFeatures:
    """Fit linear scores to digits by least squares on the backbone's features."""
    dataset = load_digits(n_images).dataset
    split = split_dataset(dataset, SplitConfig())
    features = compute_features(dataset, make_backbone(), horizontal_flip=False)
    config = TransformConfig(pca=PCAConfig(n_components=8))
    transform = fit_transform(dataset, split.train, config, features)
    targets = 8 * np.eye(10, dtype=np.float32)[dataset.labels[split.train]]
    rows = np.column_stack([features.values, np.ones(len(features), np.float32)])
    solution, *_ = np.linalg.lstsq(rows[split.train], targets)
    indices = split.validation[:32]
    trained = TrainedModel(
        config=LogisticRegressionConfig(),
        image_shape=dataset.image_shape,
        n_classes=10,
        weights={},
        graph=_linear_head(solution[:-1], solution[-1]),
        history=({"validation_accuracy": 0.5, "validation_loss": 1.0},),
        best_epoch=1,
        reference=Reference(dataset.images[indices], _softmax(rows[indices] @ solution)),
    )
    return HeadOnFeatures(dataset, split, features, transform, trained)


def _linear_head(weights: Floats, bias: Floats) -> bytes:
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["input", "weights", "bias"], ["logits"], name="gemm"),
            helper.make_node("Softmax", ["logits"], ["output"], name="softmax", axis=1),
        ],
        "head",
        [_info("input", ["N", len(weights)])],
        [_info("output", ["N", len(bias)])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    serialized: bytes = set_versions(helper.make_model(graph)).SerializeToString()
    return serialized


def _softmax(logits: Floats) -> Floats:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def _info(name: str, shape: list[str | int | None]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
