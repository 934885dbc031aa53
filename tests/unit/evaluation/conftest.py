"""Fonts of pictures, whatever is installed."""

from collections.abc import Iterator

import pytest

from cv_factory.evaluation.plots import fonts


@pytest.fixture
def no_installed_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pictures have matplotlib's own font alone."""
    monkeypatch.setattr(fonts, "_installed_families", lambda: (fonts.DEFAULT_FAMILY,))
    fonts._select_fonts.cache_clear()
    yield
    fonts._select_fonts.cache_clear()
