"""A multi-layer perceptron of scikit-learn: Adam, and early stopping on its own training loss."""

import warnings
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cv_factory.config.model_section import ClassicalSection, Width

if TYPE_CHECKING:
    from cv_factory.models import Estimator, Examples


class MLPConfig(ClassicalSection):
    """A multi-layer perceptron of scikit-learn on features."""

    name: Literal["mlp"] = "mlp"
    hidden: list[Width] = Field([128], min_length=1, max_length=5, description="units a layer")
    alpha: float = Field(1e-4, ge=0.0, description="L2 penalty")
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    max_iter: int = Field(200, ge=1, le=10_000, description="epochs at most")


def fit(config: MLPConfig, examples: "Examples", seed: int) -> "Estimator":
    """Fit on features and labels, weighted."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

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
        fitted: Estimator = model.fit(
            examples.features, examples.labels, sample_weight=examples.weights
        )
    return fitted
