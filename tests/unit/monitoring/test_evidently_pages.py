"""Evidently's pages; our detectors decide."""

import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cv_factory.inference.reference import Reference
from cv_factory.monitoring.evidently_pages import MIN_ROWS, draw_evidently_pages
from tests.unit.monitoring.conftest import draw_outputs, to_window


@pytest.mark.engines
def test_pages_leave_random_numbers_and_the_input_as_they_are(reference: Reference) -> None:
    outputs = draw_outputs(120, 21, shift=1.0)
    labels = np.where(np.arange(120) < 60, outputs.labels, -1)
    window = to_window(outputs, label=labels)
    before = window.rows.copy(), window.features.copy()
    features = reference.test.features.copy()
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    expected = np.random.RandomState(7).random(), random.Random(7).random()

    pages = draw_evidently_pages(reference, window, max_rows=100)

    assert (np.random.random(), random.random()) == expected  # noqa: NPY002
    pd.testing.assert_frame_equal(window.rows, before[0])
    np.testing.assert_array_equal(window.features, before[1])
    np.testing.assert_array_equal(reference.test.features, features)
    assert sorted(pages) == ["evidently_drift", "evidently_quality"]
    assert "sharpness" in pages["evidently_drift"]


def test_too_few_predictions_have_no_pages(reference: Reference) -> None:
    few = to_window(draw_outputs(MIN_ROWS - 1, 22))
    assert draw_evidently_pages(reference, few, max_rows=100) == {}
    small = replace(reference, test=draw_outputs(MIN_ROWS - 1, 23))
    assert draw_evidently_pages(small, to_window(draw_outputs(60, 24)), max_rows=100) == {}
