"""Gradient-boosted trees. T. Chen and C. Guestrin, XGBoost, 2016."""

import numpy as np
import numpy.typing as npt
from xgboost import XGBClassifier

from cv_factory.config.model import XGBoostConfig
from cv_factory.cpu import fitting_threads
from cv_factory.models.estimator import Estimator


def fit_xgboost(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    config: XGBoostConfig,
    seed: int,
) -> Estimator:
    """Fit on features float32 ``(N, k)`` and labels int64 ``(N,)``."""
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
    fitted: Estimator = model.fit(features, labels)
    return fitted
