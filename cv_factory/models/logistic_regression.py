"""Multinomial logistic regression."""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from cv_factory.config.model import LogisticRegressionConfig
from cv_factory.models.estimator import Estimator


def fit_logistic_regression(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    config: LogisticRegressionConfig,
    seed: int,
) -> Estimator:
    """Fit on features float32 ``(N, k)`` and labels int64 ``(N,)``."""
    model = LogisticRegression(C=config.C, max_iter=config.max_iter, random_state=seed)
    fitted: Estimator = model.fit(features, labels)
    return fitted
