"""Multinomial logistic regression on standardized PCA features."""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cv_factory.config import LogisticRegressionConfig


def fit_logistic_regression(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    config: LogisticRegressionConfig,
    seed: int,
) -> Pipeline:
    """Fit on features float32 ``(N, k)`` and labels int64 ``(N,)``."""
    model = LogisticRegression(C=config.C, max_iter=config.max_iter, random_state=seed)
    return make_pipeline(StandardScaler(), model).fit(features, labels)
