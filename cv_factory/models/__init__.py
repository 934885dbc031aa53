"""The models that a configuration can name, behind two look-ups: networks and classical estimators.

A new model is one module here, its configuration section in ``cv_factory.config``, and one branch.
"""

from typing import TYPE_CHECKING

from cv_factory.config import LogisticRegressionConfig, ModelConfig, SmallCNNConfig

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from sklearn.pipeline import Pipeline
    from torch import nn


def is_network(config: ModelConfig) -> bool:
    """Whether the model is trained by gradient descent on images (else: fitted on features)."""
    return isinstance(config, SmallCNNConfig)


def build_network(
    config: ModelConfig, image_shape: tuple[int, int, int], n_classes: int
) -> "nn.Module":
    """Build an untrained network from normalized images float ``(N, C, H, W)`` to logits."""
    match config:
        case SmallCNNConfig():
            from cv_factory.models.small_cnn import SmallCNN

            return SmallCNN(config, image_shape[2], n_classes)
        case _:
            raise ValueError(f"{config.name} is not a network")


def fit_classical(
    config: ModelConfig,
    features: "npt.NDArray[np.float32]",
    labels: "npt.NDArray[np.int64]",
    seed: int,
) -> "Pipeline":
    """Fit a scikit-learn estimator with ``predict_proba`` on features float32 ``(N, k)``."""
    match config:
        case LogisticRegressionConfig():
            from cv_factory.models.logistic_regression import fit_logistic_regression

            return fit_logistic_regression(features, labels, config, seed)
        case _:
            raise ValueError(f"{config.name} is not a classical model")
