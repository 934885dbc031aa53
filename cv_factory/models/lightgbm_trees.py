"""Gradient-boosted trees. G. Ke et al., LightGBM, 2017."""

import numpy as np
import numpy.typing as npt
from lightgbm import LGBMClassifier

from cv_factory.config.model import LightGBMConfig
from cv_factory.cpu import fitting_threads
from cv_factory.models.estimator import Estimator


def fit_lightgbm(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    config: LightGBMConfig,
    seed: int,
) -> Estimator:
    """Fit on features float32 ``(N, k)`` and labels int64 ``(N,)``."""
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
    fitted: Estimator = model.fit(features, labels)
    return fitted
