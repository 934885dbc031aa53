"""Every figure of a benchmark that a page quotes is that of a stored result."""

import re
from pathlib import Path

import pytest

from benchmarks.documentation import FIGURES, fill
from tests.support.paths import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_the_figures_of_a_page_are_those_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert fill(text) == text, "python -m benchmarks.documentation writes them anew"


def test_every_stored_figure_is_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall(r"<!-- figures: (\w+) -->", text)) == set(FIGURES)


def test_a_changed_figure_is_noticed() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    changed = page.replace("| digits, small_cnn | 0.122", "| digits, small_cnn | 0.112")
    assert changed != page
    assert fill(changed) == page
