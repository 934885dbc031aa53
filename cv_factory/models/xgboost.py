"""Gradient-boosted trees. T. Chen and C. Guestrin, XGBoost, 2016."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cv_factory.cpu import fitting_threads
from cv_factory.models._boosting import BoostingSection, convert_boosted

if TYPE_CHECKING:
    import onnx

    from cv_factory.models import Estimator, Examples


class XGBoostConfig(BoostingSection):
    """Gradient-boosted trees of XGBoost on features."""

    name: Literal["xgboost"] = "xgboost"
    max_depth: int = Field(6, ge=1, le=32)


def fit(config: XGBoostConfig, examples: "Examples", seed: int) -> "Estimator":
    """Fit on features and labels, weighted."""
    from xgboost import XGBClassifier

    model = XGBClassifier(
        n_estimators=config.n_estimators,
        max_depth=config.max_depth,
        learning_rate=config.learning_rate,
        subsample=config.subsample,
        colsample_bytree=config.colsample,
        reg_lambda=config.l2,
        tree_method="hist",
        random_state=seed,
        n_jobs=fitting_threads(),
    )
    fitted: Estimator = model.fit(
        examples.features, examples.labels, sample_weight=examples.weights
    )
    return fitted


def convert(estimator: "Estimator", n_features: int) -> "onnx.ModelProto":
    """Convert to a graph from features float32 ``(N, k)`` to probabilities ``(N, K)``."""
    return convert_boosted("xgboost", estimator, n_features)
