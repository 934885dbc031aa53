"""A random forest. L. Breiman, Random Forests, 2001."""

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier

from cv_factory.config.model import RandomForestConfig
from cv_factory.cpu import fitting_threads
from cv_factory.models.estimator import Estimator


def fit_random_forest(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    config: RandomForestConfig,
    seed: int,
) -> Estimator:
    """Fit on features float32 ``(N, k)`` and labels int64 ``(N,)``."""
    model = RandomForestClassifier(
        n_estimators=config.n_estimators,
        max_depth=config.max_depth,
        min_samples_leaf=config.min_samples_leaf,
        max_features=config.max_features,
        random_state=seed,
        n_jobs=fitting_threads(),
    )
    fitted: Estimator = model.fit(features, labels)
    return fitted
