"""Fonts of plots: DejaVu Sans, and installed fonts for characters that it lacks.

Class names that no installed font can write stand in pictures as ``class 5``, the number of their
label; pages name them in HTML, where the browser's fonts are.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from cv_factory.progress import quiet_loggers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: It warns of each family that lacks a weight.
FONT_LOGGER = "matplotlib.font_manager"
#: Ships with matplotlib.
DEFAULT_FAMILY = "DejaVu Sans"
#: It has all characters below, and these, so that most names need no look at fonts.
_FIRST_UNSURE, _SURE = "\u0250", frozenset("→…−")
#: They have a glyph for every character: a box, or a picture that matplotlib cannot draw.
_UNFIT = ("Last Resort", "LastResort", "Color Emoji")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def writable_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return the names as pictures show them: those that no font can write as ``class 5``."""
    return tuple(
        f"class {label}" if missing_characters(name) else name
        for label, name in enumerate(class_names)
    )


def replace_missing(text: str) -> str:
    """Return the text with a replacement character for each that no installed font has."""
    missing = missing_characters(text)
    return "".join(_REPLACEMENT if c in missing else c for c in text) if missing else text


def missing_characters(text: str) -> frozenset[str]:
    """Return the characters that no installed font has."""
    unsure = _unsure_characters(text)
    return _select_fonts(unsure)[1] if unsure else frozenset()


def font_families(text: str) -> tuple[str, ...]:
    """Return the installed families that write what the default family lacks."""
    unsure = _unsure_characters(text)
    return _select_fonts(unsure)[0] if unsure else ()


def use_installed_fonts(figure: "Figure") -> None:
    """Give each text of a figure the fonts that have its characters."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if families := font_families(text.get_text()):
            text.set_fontfamily([DEFAULT_FAMILY, *families])


def _unsure_characters(text: str) -> frozenset[str]:
    return frozenset(c for c in text if c >= _FIRST_UNSURE and c not in _SURE)


@lru_cache(maxsize=4096)
def _select_fonts(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the fewest families that add what the default lacks, and what none of them has."""
    families: list[str] = []
    with quiet_loggers(logging.ERROR, FONT_LOGGER):
        missing = characters - _covered(characters, DEFAULT_FAMILY)
        while missing:
            best = max(_installed_families(), key=lambda family: len(_covered(missing, family)))
            if not _covered(missing, best):
                break
            families.append(best)
            missing -= _covered(missing, best)
    return tuple(families), missing


def _covered(characters: frozenset[str], family: str) -> frozenset[str]:
    return frozenset(c for c in characters if ord(c) in _coverage(family))


@lru_cache(maxsize=1)
def _installed_families() -> tuple[str, ...]:
    """Return the families of upright fonts, those of sans serif first."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    # matplotlib lists fonts once, and never again after others were installed.
    listed = {entry.fname for entry in fontManager.ttflist}
    for path in sorted(set(findSystemFonts()) - listed):
        try:
            fontManager.addfont(path)
        except (OSError, RuntimeError):  # damaged, or of a kind that FreeType does not read
            continue
    names = {entry.name for entry in fontManager.ttflist if entry.style == "normal"}
    fit = (name for name in names if not any(word in name for word in _UNFIT))
    return tuple(sorted(fit, key=lambda name: ("Sans" not in name, name)))


@lru_cache(maxsize=1024)
def _coverage(family: str) -> frozenset[int]:
    """Return the code points that a family has, upright, in the weights of labels and headings."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    try:
        fonts = [
            get_font(findfont(FontProperties(family=[family], weight=weight)))
            for weight in ("normal", "bold")
        ]
    except (OSError, RuntimeError):
        return frozenset()
    if not all(font.scalable for font in fonts):
        return frozenset()
    regular, bold = (frozenset(font.get_charmap()) for font in fonts)
    return regular & bold
