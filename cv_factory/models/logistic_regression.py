"""Multinomial logistic regression."""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from cv_factory.config import LogisticRegressionConfig


def fit_logistic_regression(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    config: LogisticRegressionConfig,
    seed: int,
) -> LogisticRegression:
    """Fit on features float32 ``(N, k)`` and labels int64 ``(N,)``."""
    model = LogisticRegression(C=config.C, max_iter=config.max_iter, random_state=seed)
    return model.fit(features, labels)
