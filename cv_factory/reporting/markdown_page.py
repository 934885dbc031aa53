"""Renders pages as Markdown (GitHub's dialect), without their pictures."""

import re

from cv_factory.reporting.page import Badge, Bar, Block, Cell, Entry, Picture, Sections, Text

#: Characters that are markup where they stand: an underscore inside a word is none.
_MARKUP = re.compile(r"[\\`*\[<|~]|(?<![^\W_])_|_(?![^\W_])|(?<!\S)#|^>|&(?=#?\w+;)")

#: Rows of a table that are written.
_MAX_ROWS = 60


def render_markdown(title: str, subtitle: str, sections: Sections) -> str:
    """Return a page as Markdown.

    Args:
        title: The heading; it is escaped.
        subtitle: Markdown.
        sections: Title and content of each.
    """
    lines = [f"# {escape_markdown(title)}", "", subtitle]
    for heading, blocks in sections:
        shown = [line for block in blocks for line in _render_block(block)]
        if shown:
            lines += ["", f"## {heading}", *shown]
    return "\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is: on one line, no markup, links or HTML."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _render_block(block: Block) -> list[str]:
    if isinstance(block, Text):
        return ["", escape_markdown(block.text)]
    if isinstance(block, Picture):
        return []
    lines = ["| " + " | ".join(block.columns) + " |", "|" + "---|" * len(block.columns)]
    shown = block.rows[:_MAX_ROWS]
    rows = ["| " + " | ".join(map(_render_cell, row)) + " |" for row in shown]
    n_more = len(block.rows) - len(shown)
    return ["", *lines, *rows, *(["", f"and {n_more:,} more rows"] if n_more else [])]


def _render_cell(cell: Cell) -> str:
    if isinstance(cell, Bar):
        return ""
    if isinstance(cell, Badge):
        return escape_markdown(cell.word)
    if isinstance(cell, Entry):
        return escape_markdown(f"{cell.title}: {cell.text}")
    return escape_markdown(str(cell))
