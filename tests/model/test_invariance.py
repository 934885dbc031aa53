"""Changes that do not matter to a person keep the predicted class."""

import numpy as np
import pytest

from tests.model.conftest import TrainedRun


@pytest.mark.parametrize(("factor", "offset"), [(0.9, 0), (1.1, 0), (1.0, 10), (0.9, 10)])
def test_contrast_and_brightness_keep_the_class(
    run: TrainedRun, factor: float, offset: float
) -> None:
    assert run.agreement(factor * run.images + offset) >= 0.95


@pytest.mark.parametrize(
    ("axis", "step", "minimum"),
    # The digits fill their 8 rows: a vertical shift cuts one of them off.
    [(2, 1, 0.95), (2, -1, 0.95), (1, 1, 0.75), (1, -1, 0.75)],
    ids=["right", "left", "down", "up"],
)
def test_a_shift_by_one_pixel_keeps_the_class(
    run: TrainedRun, axis: int, step: int, minimum: float
) -> None:
    shifted = np.roll(run.images, step, axis)
    edge = 0 if step > 0 else -1
    np.moveaxis(shifted, axis, 0)[edge] = 0
    assert run.agreement(shifted) >= minimum


def test_faint_noise_keeps_the_class(run: TrainedRun) -> None:
    noise = np.random.default_rng(0).normal(0, 8, run.images.shape)
    assert run.agreement(run.images + noise) >= 0.95


def test_the_order_of_a_batch_does_not_matter(run: TrainedRun) -> None:
    order = np.random.default_rng(0).permutation(len(run.images))
    probabilities = run.predict_proba(run.images)
    np.testing.assert_allclose(
        run.predict_proba(run.images[order]), probabilities[order], atol=1e-5
    )
