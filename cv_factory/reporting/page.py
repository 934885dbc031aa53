"""The content of a page: sections of text, tables and pictures, free of any markup."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

Facts = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Badge:
    """A word in the color of its meaning, such as a verdict or a stage."""

    word: str


@dataclass(frozen=True)
class Bar:
    """A horizontal bar; ``fraction`` 0 to 1 of the column's width."""

    fraction: float


@dataclass(frozen=True)
class Entry:
    """A cell with a title, a text below it, thumbnails (PNG in base64 by name) and names."""

    title: str
    text: str
    names: Sequence[str] = ()
    n_more_names: int = 0
    thumbnails: Mapping[str, str] = field(default_factory=dict)


Cell = str | int | Badge | Bar | Entry


@dataclass(frozen=True)
class Table:
    """Columns and rows.

    Attributes:
        columns: The header's names.
        rows: One cell a column.
        has_header: A table of facts has none: its first column names the rows.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    has_header: bool = True


@dataclass(frozen=True)
class Picture:
    """A PNG, drawn once, when it is needed."""

    caption: str
    draw: Callable[[], bytes]

    @cached_property
    def png(self) -> bytes:
        """The file's bytes."""
        return self.draw()


Block = Text | Table | Picture
Sections = Sequence[tuple[str, list[Block]]]


@dataclass(frozen=True)
class Tile:
    """A figure at the top of a page: name, value, and a note such as its interval."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Header:
    """The top of a page: heading, a smaller addition to it, a badge, and one line of text."""

    heading: str
    addition: str = ""
    badge: Badge | None = None
    text: str = ""


def facts_table(facts: Facts) -> Table:
    """Return a table of names and values without a header."""
    rows = tuple((name, _format(value)) for name, value in facts.items())
    return Table(("", ""), rows, has_header=False)


def count_table(name: str, counts: Mapping[str, int]) -> Table:
    """Return a table of numbers of images, each with a bar; ``name`` is the first column's."""
    largest = max([*counts.values(), 1])
    rows = tuple((key, Bar(n / largest), n) for key, n in counts.items())
    return Table((name, "", "images"), rows)


def _format(value: str | int | float | bool | None) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else value
