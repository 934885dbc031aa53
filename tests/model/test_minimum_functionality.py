"""What every version has to do: recognize each class, and be surest where it is right."""

import numpy as np
import pytest

from tests.model.conftest import TrainedRun


@pytest.mark.parametrize("label", range(10))
def test_each_class_is_recognized(run: TrainedRun, label: int) -> None:
    easy = run.train_images[run.train_labels == label].mean(axis=0, keepdims=True)
    (probabilities,) = run.predict_proba(easy)
    assert probabilities.argmax() == label
    assert probabilities[label] >= 0.5
    predicted = run.predict_proba(run.images[run.labels == label]).argmax(axis=1)
    assert (predicted == label).mean() >= 0.85


def test_probabilities_are_a_distribution(run: TrainedRun) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1))
    for images in (run.images, noise, np.zeros((1, 8, 8, 1))):
        probabilities = run.predict_proba(images)
        assert np.isfinite(probabilities).all()
        assert probabilities.min() >= 0
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_confidence_is_higher_where_the_class_is_right(run: TrainedRun) -> None:
    probabilities = run.predict_proba(run.images)
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == run.labels
    assert is_right.mean() >= 0.95
    assert confidence[is_right].mean() >= 0.7
    assert confidence[~is_right].mean() <= confidence[is_right].mean() - 0.2
    assert is_right[confidence >= 0.9].mean() >= 0.99
