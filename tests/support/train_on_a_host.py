"""Trains a tiny network on digits, as the step of the first of several machines would.

A program for ``test_two_hosts``: prints ``HISTORY`` and the losses as JSON.
"""

import json
import logging

from cv_factory.config.train import TrainConfig
from cv_factory.models.small_cnn import SmallCNNConfig
from tests.support.digits import load_digits

CONFIG = TrainConfig(epochs=2, batch_size=32, crop_padding=1, device="cpu")


def losses() -> list[float]:
    """Train and return the loss of each epoch."""
    trained = load_digits(300).train(SmallCNNConfig(channels=[4, 8]), CONFIG)
    return [row["train_loss"] for row in trained.history]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    print("HISTORY " + json.dumps(losses()))
