"""One predictor for all tests of the model's behavior, trained by the library alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from cv_factory.config.train import TrainConfig
from cv_factory.inference.predictor import Predictor
from cv_factory.models.small_cnn import SmallCNNConfig
from tests.support.digits import load_digits


@dataclass(frozen=True)
class TrainedRun:
    """A predictor, and the images uint8 ``(N, 8, 8, 1)`` and labels of both parts of its digits."""

    predictor: Predictor
    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def predict_proba(self, images: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Return probabilities ``(N, 10)`` of images in any numeric type, clipped to uint8."""
        pixels = np.clip(np.rint(images), 0, 255).astype(np.uint8)
        return self.predictor.predict(pixels).probabilities

    def agreement(self, images: npt.NDArray[np.generic]) -> float:
        """Return the fraction of changed test images that keep the class of the unchanged ones."""
        before, after = self.predict_proba(self.images), self.predict_proba(images)
        return float((before.argmax(axis=1) == after.argmax(axis=1)).mean())


@pytest.fixture(scope="session")
def run() -> TrainedRun:
    digits = load_digits(n_components=16)
    config = TrainConfig(epochs=6, batch_size=64, crop_padding=1, device="cpu")
    trained = digits.train(SmallCNNConfig(channels=[16, 32, 32]), config)
    dataset, split = digits.dataset, digits.split
    return TrainedRun(
        digits.export(trained),
        dataset.images[split.train],
        dataset.labels[split.train],
        dataset.images[split.test],
        dataset.labels[split.test],
    )
