"""A multi-layer perceptron of scikit-learn: Adam, and early stopping on its own training loss."""

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from cv_factory.config.model import MLPConfig
from cv_factory.models.estimator import Estimator


def fit_mlp(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    config: MLPConfig,
    seed: int,
) -> Estimator:
    """Fit on features float32 ``(N, k)`` and labels int64 ``(N,)``."""
    model = MLPClassifier(
        hidden_layer_sizes=tuple(config.hidden),
        alpha=config.alpha,
        learning_rate_init=config.learning_rate,
        max_iter=config.max_iter,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Stopping at max_iter is what the configuration asks for.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted: Estimator = model.fit(features, labels)
    return fitted
