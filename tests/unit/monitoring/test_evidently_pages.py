"""Evidently's pages; our detectors decide."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cv_factory.inference.reference import Reference
from cv_factory.monitoring.evidently_pages import MIN_ROWS, draw_evidently_pages
from tests.unit.monitoring.conftest import draw_outputs, to_window


@pytest.mark.engines
def test_pages_load_nothing_and_leave_random_numbers_and_the_input_as_they_are(
    reference: Reference, engine: Callable[..., str], tmp_path: Path
) -> None:
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
    last_widgets = {
        "evidently_drift": "Drift in embeddings 'features'",
        "evidently_quality": "Classification Quality by Label",
    }
    chromium = engine("chromium", "chromium-browser")
    for name, page in pages.items():
        file = tmp_path / f"{name}.html"
        file.write_text(page, encoding="utf-8")
        assert _open_in_browser(chromium, file, last_widgets[name]) == [file.as_uri()]


def _open_in_browser(chromium: str, file: Path, text: str) -> list[str]:
    """Open a page until it shows a text, and return what it loaded but its own data."""
    from playwright.sync_api import sync_playwright

    options, urls = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page()
        page.on("request", lambda request: urls.append(request.url))
        page.goto(file.as_uri())
        page.get_by_text(text).first.wait_for()
        browser.close()
    return [url for url in urls if not url.startswith(("data:", "blob:"))]


def test_too_few_predictions_have_no_pages(reference: Reference) -> None:
    few = to_window(draw_outputs(MIN_ROWS - 1, 22))
    assert draw_evidently_pages(reference, few, max_rows=100) == {}
    small = replace(reference, test=draw_outputs(MIN_ROWS - 1, 23))
    assert draw_evidently_pages(small, to_window(draw_outputs(60, 24)), max_rows=100) == {}
