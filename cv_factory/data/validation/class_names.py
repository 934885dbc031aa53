"""Finds class names that a reader cannot tell apart, or that differ in case only."""

import re
import unicodedata
from collections.abc import Callable, Iterable

import pandas as pd

from cv_factory.data.validation.rules import BETWEEN, Rule

_MAX_LISTED_GROUPS = 5
#: Soft hyphens, zero-width spaces, marks of direction, joiners of words and byte orders.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")
_NUMBER = re.compile(r"[+-]?\d+\.\d*")


def build_class_name_rules(classes: pd.DataFrame) -> list[Rule]:
    """Return the rules on the class names of a table of classes, to which they add columns.

    Args:
        classes: One row a class, with the column ``class_name``.
    """
    names = [str(name) for name in classes["class_name"]]
    alike = _group(names, _normalize_appearance)
    # One name of each group: what differs in blanks is reported once.
    case = _group((group[0] for group in _group(names, _normalize_appearance, 1)), _fold_case)
    for column, groups in (("names_alike", alike), ("names_alike_but_case", case)):
        sizes = {name: len(group) for group in groups for name in group}
        classes[column] = [sizes.get(name, 1) for name in names]
    return [
        Rule("class_names_distinct", "error",
             "No two class names look the same (blanks, Unicode's forms, 1 and 1.0).", "none",
             BETWEEN, {"column": "names_alike", "max_value": 1}, _describe(alike, ascii),
             "Spell each name one way, or: --set validation.severity.class_names_distinct=warning"),
        Rule("class_names_case", "warning", "No two class names differ in case only.", "none",
             BETWEEN, {"column": "names_alike_but_case", "max_value": 1}, _describe(case, repr)),
    ]  # fmt: skip


def _group(
    names: Iterable[str], key: Callable[[str], str], min_size: int = 2
) -> list[tuple[str, ...]]:
    """Return the groups of names with the same key, in the order of the names."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) >= min_size]


def _normalize_appearance(name: str) -> str:
    """Return a name as it looks: in normal form C, blanks of one kind, no fraction that is zero."""
    text = " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFC", name)).split())
    return text.rstrip("0").rstrip(".") if _NUMBER.fullmatch(text) else text


def _fold_case(name: str) -> str:
    return _normalize_appearance(name).casefold()


def _describe(groups: list[tuple[str, ...]], quote: Callable[[str], str]) -> str:
    """Return such as ``'Cat' and 'cat'; 'Dog' and 'dog'``."""
    if not groups:
        return "none"
    listing = "; ".join(" and ".join(map(quote, group)) for group in groups[:_MAX_LISTED_GROUPS])
    more = len(groups) - _MAX_LISTED_GROUPS
    return f"{listing} and {more} more" if more > 0 else listing
