"""Small predictors of digits, trained once a process."""

from dataclasses import replace
from functools import cache

import numpy as np

from cv_factory.config.export import FamiliarityConfig
from cv_factory.config.train import TrainConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.export.familiarity import add_familiarity
from cv_factory.inference.predictor import Predictor
from cv_factory.models.logistic_regression import LogisticRegressionConfig
from cv_factory.models.random_forest import RandomForestConfig
from cv_factory.models.small_cnn import SmallCNNConfig
from cv_factory.training.trained_model import TrainedModel
from tests.support.digits import load_digits

_MODELS = {
    "logistic_regression": LogisticRegressionConfig(),
    "random_forest": RandomForestConfig(n_estimators=20),
    "small_cnn": SmallCNNConfig(channels=[8, 8, 16]),
}


@cache
def digits_predictor(
    model: str, *, calibrated: bool = False, has_familiarity: bool = False
) -> tuple[Predictor, ImageDataset, Split]:
    """Return a predictor of 600 digits, the digits, and their split."""
    digits = load_digits(600, n_components=16)
    predictor = digits.export(_train(model), calibrated=calibrated)
    if has_familiarity:
        predictor = add_familiarity(
            predictor, digits.dataset, digits.split, FamiliarityConfig(false_rate=0.05)
        )
    return predictor, digits.dataset, digits.split


@cache
def _train(model: str) -> TrainedModel:
    config = TrainConfig(epochs=4, batch_size=32, crop_padding=1)
    return load_digits(600, n_components=16).train(_MODELS[model], config)


def with_wrong_golden_samples(predictor: Predictor) -> Predictor:
    """Return the predictor with golden samples that its graph does not reproduce."""
    golden = predictor.golden
    shifted = replace(golden, probabilities=np.roll(golden.probabilities, 1, axis=1))
    return replace(predictor, golden=shifted)
