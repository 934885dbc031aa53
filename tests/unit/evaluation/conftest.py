"""Pictures: drawn anew in each test, and their fonts, whatever is installed."""

from collections.abc import Iterator

import pytest

from cv_factory.evaluation.plots import fonts, style


@pytest.fixture(autouse=True)
def _nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture of an earlier test, with its fonts, is shown again."""
    style.forget_drawn()
    monkeypatch.setattr(style, "read_picture", lambda key: None)


@pytest.fixture
def no_installed_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pictures have matplotlib's own font alone."""
    monkeypatch.setattr(fonts, "_installed_families", lambda: (fonts.DEFAULT_FAMILY,))
    fonts._select_fonts.cache_clear()
    yield
    fonts._select_fonts.cache_clear()
