"""The models that a configuration can name, behind look-ups: networks and classical estimators.

A new model is one module here, its configuration section in ``cv_factory.config.model``, and one
branch below.
"""

from typing import TYPE_CHECKING

from cv_factory.config.model import (
    EfficientNetLite0Config,
    LightGBMConfig,
    LogisticRegressionConfig,
    MLPConfig,
    MobileNetV2Config,
    ModelConfig,
    NetworkSection,
    RandomForestConfig,
    ResNet18Config,
    SmallCNNConfig,
    TorchvisionModelConfig,
    WhitenedCNNConfig,
    XGBoostConfig,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from cv_factory.models.estimator import Estimator
    from cv_factory.transforms.fitted import FittedTransform


def is_network(config: ModelConfig) -> bool:
    """Whether the model is trained by gradient descent on images (else: fitted on features)."""
    return isinstance(config, NetworkSection)


def check_available(config: ModelConfig) -> None:
    """Check, before anything is created, that the named model is there on this machine.

    Raises:
        ConfigError: An architecture or weights are unknown, or a package is missing.
    """
    match config:
        case ResNet18Config() | MobileNetV2Config() | TorchvisionModelConfig():
            from cv_factory.models.torchvision_network import check_architecture

            check_architecture(config)
        case EfficientNetLite0Config():
            from cv_factory.models.efficientnet_lite0 import check_installed

            check_installed()
        case _:
            pass


def new_network(config: ModelConfig, transform: "FittedTransform") -> "nn.Module":
    """Build a network as training begins with it: first layers and pretrained weights are set.

    Args and returned network as for ``build_network``.

    Raises:
        TrainingError: The images are too small for it, or weights cannot be had.
    """
    network = build_network(config, transform)
    match config:
        case WhitenedCNNConfig():
            from cv_factory.models.whitened_cnn import set_whitening

            set_whitening(network, transform.patches)
        case EfficientNetLite0Config():
            from cv_factory.models.efficientnet_lite0 import set_pretrained

            set_pretrained(network, config, transform.normalization)
        case ResNet18Config() | MobileNetV2Config() | TorchvisionModelConfig():
            from cv_factory.models.torchvision_network import set_weights

            set_weights(network, config)
        case _:
            pass
    return network


def build_network(config: ModelConfig, transform: "FittedTransform") -> "nn.Module":
    """Build a network whose weights are loaded afterwards, as those of a trained one are.

    Args:
        config: The network's section.
        transform: Fitted on the training images; gives image shape, classes and patches.

    Returns:
        Maps normalized images float ``(N, C, H, W)`` to logits ``(N, K)``. Parameters that are
        not trained say ``requires_grad=False``.

    Raises:
        TrainingError: The images are too small for it.
    """
    shape, n_classes = transform.image_shape, len(transform.class_names)
    match config:
        case SmallCNNConfig():
            from cv_factory.models.small_cnn import SmallCNN

            return SmallCNN(config, shape[2], n_classes)
        case WhitenedCNNConfig():
            from cv_factory.models.whitened_cnn import WhitenedCNN

            return WhitenedCNN(config, transform.patches, shape, n_classes)
        case EfficientNetLite0Config():
            from cv_factory.models.efficientnet_lite0 import build_efficientnet_lite0

            return build_efficientnet_lite0(config, shape, n_classes)
        case ResNet18Config() | MobileNetV2Config() | TorchvisionModelConfig():
            from cv_factory.models.torchvision_network import build_torchvision_network

            return build_torchvision_network(config, shape, n_classes)
        case _:
            raise ValueError(f"{config.name} is not a network")


def fit_classical(
    config: ModelConfig,
    features: "npt.NDArray[np.float32]",
    labels: "npt.NDArray[np.int64]",
    seed: int,
) -> "Estimator":
    """Fit an estimator on standardized features float32 ``(N, k)`` and labels int64 ``(N,)``."""
    match config:
        case LogisticRegressionConfig():
            from cv_factory.models.logistic_regression import fit_logistic_regression

            return fit_logistic_regression(features, labels, config, seed)
        case RandomForestConfig():
            from cv_factory.models.random_forest import fit_random_forest

            return fit_random_forest(features, labels, config, seed)
        case XGBoostConfig():
            from cv_factory.models.xgboost_trees import fit_xgboost

            return fit_xgboost(features, labels, config, seed)
        case LightGBMConfig():
            from cv_factory.models.lightgbm_trees import fit_lightgbm

            return fit_lightgbm(features, labels, config, seed)
        case MLPConfig():
            from cv_factory.models.mlp import fit_mlp

            return fit_mlp(features, labels, config, seed)
        case _:
            raise ValueError(f"{config.name} is not a classical model")
