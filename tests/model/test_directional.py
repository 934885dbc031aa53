"""Changes that matter move the probability of the true class in the expected direction."""

import numpy as np

from tests.model.conftest import TrainedRun


def test_occlusion_lowers_the_true_class(run: TrainedRun) -> None:
    rows = np.arange(len(run.labels))
    before = run.predict_proba(run.images)[rows, run.labels]
    means = [before.mean()]
    for side in (2, 4, 6):
        occluded = run.images.copy()
        start = (8 - side) // 2
        occluded[:, start : start + side, start : start + side] = 0
        after = run.predict_proba(occluded)[rows, run.labels]
        assert (after < before).mean() >= 0.85, side
        means.append(after.mean())
    assert means == sorted(means, reverse=True), "the larger the square, the less is recognized"


def test_blending_into_another_digit_moves_probability_to_its_class(run: TrainedRun) -> None:
    digits = np.stack([run.images[run.labels == label][0] for label in range(10)]).astype(float)
    others, labels = np.roll(digits, -1, axis=0), np.arange(10)
    scores = [
        run.predict_proba((1 - weight) * digits + weight * others) for weight in (0.0, 0.5, 1.0)
    ]
    own = [score[labels, labels].mean() for score in scores]
    other = [score[labels, (labels + 1) % 10].mean() for score in scores]
    assert own == sorted(own, reverse=True)
    assert other == sorted(other)
