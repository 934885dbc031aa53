"""Gradient-boosted trees. G. Ke et al., LightGBM, 2017."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cv_factory.cpu import fitting_threads
from cv_factory.models._boosting import BoostingSection, convert_boosted

if TYPE_CHECKING:
    import onnx

    from cv_factory.models import Estimator, Examples


class LightGBMConfig(BoostingSection):
    """Gradient-boosted trees of LightGBM on features."""

    name: Literal["lightgbm"] = "lightgbm"
    num_leaves: int = Field(31, ge=2, le=4096)
    min_child_samples: int = Field(20, ge=1, le=10_000, description="images in a leaf, at least")


def fit(config: LightGBMConfig, examples: "Examples", seed: int) -> "Estimator":
    """Fit on features and labels, weighted."""
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(
        n_estimators=config.n_estimators,
        num_leaves=config.num_leaves,
        min_child_samples=config.min_child_samples,
        learning_rate=config.learning_rate,
        subsample=config.subsample,
        subsample_freq=1,
        colsample_bytree=config.colsample,
        reg_lambda=config.l2,
        deterministic=True,
        force_row_wise=True,
        random_state=seed,
        n_jobs=fitting_threads(),
        verbosity=-1,
    )
    fitted: Estimator = model.fit(
        examples.features, examples.labels, sample_weight=examples.weights
    )
    return fitted


def convert(estimator: "Estimator", n_features: int) -> "onnx.ModelProto":
    """Convert to a graph from features float32 ``(N, k)`` to probabilities ``(N, K)``."""
    return convert_boosted("lightgbm", estimator, n_features, zipmap=False)
