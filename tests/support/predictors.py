"""Small predictors of the digits for tests, trained once a session."""

from dataclasses import replace
from functools import cache

import numpy as np

from cv_factory.config.data import DataConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import PCAConfig, TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.ingest import ingest
from cv_factory.data.split import Split, split_dataset
from cv_factory.export.onnx_graph import export_predictor
from cv_factory.inference.predictor import Predictor
from cv_factory.models.logistic_regression import LogisticRegressionConfig
from cv_factory.models.small_cnn import SmallCNNConfig
from cv_factory.training.train import train
from cv_factory.transforms.fitted import fit_transform

_MODELS = {
    "logistic_regression": LogisticRegressionConfig(),
    "small_cnn": SmallCNNConfig(channels=[8, 8, 16]),
}


@cache
def digits_predictor(
    model: str, *, calibrated: bool = False
) -> tuple[Predictor, ImageDataset, Split]:
    """Return a predictor of 600 digits, the digits, and their split."""
    dataset = ingest(DataConfig(limit=600))
    split = split_dataset(dataset, SplitConfig())
    transform = fit_transform(dataset, split.train, TransformConfig(pca=PCAConfig(n_components=16)))
    config = TrainConfig(epochs=4, batch_size=32, crop_padding=1)
    trained = train(dataset, split, transform, _MODELS[model], config)
    held_out = (dataset, split.validation) if calibrated else None
    return export_predictor(trained, transform, {}, held_out), dataset, split


def with_wrong_golden_samples(predictor: Predictor) -> Predictor:
    """Return the predictor as on a machine where it answers other than where it was exported."""
    golden = predictor.golden
    shifted = replace(golden, probabilities=np.roll(golden.probabilities, 1, axis=1))
    return replace(predictor, golden=shifted)
