"""Trains a tiny network on digits, as the step of the first of several machines would.

A program for ``test_two_hosts``: prints ``HISTORY`` and the losses as JSON.
"""

import json

from cv_factory.config.data import DataConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import PCAConfig, TransformConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.split import split_dataset
from cv_factory.models.small_cnn import SmallCNNConfig
from cv_factory.training.train import train
from cv_factory.transforms.fitted import fit_transform

CONFIG = TrainConfig(epochs=2, batch_size=32, crop_padding=1, device="cpu")


def losses() -> list[float]:
    """Train and return the loss of each epoch."""
    dataset = ingest(DataConfig(limit=300))
    split = split_dataset(dataset, SplitConfig())
    config = TransformConfig(pca=PCAConfig(n_components=4))
    transform = fit_transform(dataset, split.train, config)
    trained = train(dataset, split, transform, SmallCNNConfig(channels=[4, 8]), CONFIG)
    return [row["train_loss"] for row in trained.history]


if __name__ == "__main__":
    print("HISTORY " + json.dumps(losses()))
