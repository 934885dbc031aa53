"""Trains on digits once for every line on standard input, each time in a forked process.

A program for ``test_resume``: each line on standard input forks a process that trains and prints
``PID number``, then ``TRAINED fingerprint`` if it is left to finish. Importing torch only once
makes a training take a second.
"""

import os
import sys

import torch

from cv_factory.code_fingerprint import code_fingerprint
from cv_factory.config.train import TrainConfig
from cv_factory.models.small_cnn import SmallCNNConfig
from cv_factory.training.network import train_network  # noqa: F401  (imported before the fork)
from tests.support.digits import load_digits

MODEL = SmallCNNConfig(channels=[4, 8], dropout=0.2)
CONFIG = TrainConfig(
    epochs=3,
    batch_size=8,
    crop_padding=1,
    cutout=2,
    ema_decay=0.9,
    checkpoint_seconds=0.0,
    device="cpu",
)


def main() -> None:
    """Train once for every line."""
    # Threads do not survive a fork.
    torch.set_num_threads(1)
    digits = load_digits()
    # Computed before the fork, like the imports.
    assert digits.dataset.content_hash
    assert code_fingerprint("cv_factory.training.train")
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            trained = digits.train(MODEL, CONFIG)
            print(f"TRAINED {trained.fingerprint}", flush=True)
            os._exit(0)
        print(f"PID {child}", flush=True)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
