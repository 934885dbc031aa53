"""Multinomial logistic regression."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cv_factory.config.model_section import ClassicalSection

if TYPE_CHECKING:
    from cv_factory.models import Estimator, Examples


class LogisticRegressionConfig(ClassicalSection):
    """Multinomial logistic regression on the standardized PCA features."""

    name: Literal["logistic_regression"] = "logistic_regression"
    C: float = Field(1.0, gt=0.0, description="inverse of the L2 penalty")
    max_iter: int = Field(1000, ge=10)


def fit(config: LogisticRegressionConfig, examples: "Examples", seed: int) -> "Estimator":
    """Fit on features and labels, weighted."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=config.C, max_iter=config.max_iter, random_state=seed)
    fitted: Estimator = model.fit(
        examples.features, examples.labels, sample_weight=examples.weights
    )
    return fitted
