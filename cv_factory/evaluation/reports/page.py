"""Pages of text, tables and pictures, as Markdown and as one self-contained HTML file.

What is handed in is shown as it is: no markup, links or scripts come of it.
"""

import base64
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Facts = Mapping[str, str | int | float | bool | None]
Cell = str | int

_NUMBERS = (
    *("value", "precision", "recall", "F1", "test images", "images", "accuracy", "log loss"),
    *("severity 1", "severity 2", "severity 3", "confidence", "interval"),
)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Columns and rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    # A table of facts has no header, and its first column names the rows.
    has_header: bool = True


@dataclass(frozen=True)
class Picture:
    """A PNG, drawn when it is needed."""

    caption: str
    png: Callable[[], bytes]


Block = Text | Table | Picture
Sections = list[tuple[str, list[Block]]]


def render_markdown(title: str, subtitle: str, sections: Sections) -> str:
    """Return a page as Markdown (GitHub's dialect), without the pictures.

    Args:
        title: The heading; it is escaped.
        subtitle: Markdown.
        sections: Title and content of each.
    """
    lines = [f"# {escape_markdown(title)}", "", subtitle]
    for heading, blocks in sections:
        shown = [line for block in blocks for line in _markdown_block(block)]
        if shown:
            lines += ["", f"## {heading}", *shown]
    return "\n".join(lines) + "\n"


def render_html(
    title: str, header: str, tiles: Sequence[tuple[str, str, str]], sections: Sections
) -> str:
    """Return a page as HTML: pictures inside, no scripts, no external links.

    Args:
        title: Of the window; it is escaped.
        header: HTML.
        tiles: Name, value and interval of the figures on top.
        sections: Title and content of each.
    """
    body = [
        f"<section><h2>{html.escape(heading)}</h2>{''.join(map(_html_block, blocks))}</section>"
        for heading, blocks in sections
    ]
    return _PAGE.format(
        title=html.escape(title),
        style=_STYLE,
        header=header,
        tiles="".join(
            f"<div><b>{html.escape(name)}</b>{html.escape(value)}<small>{html.escape(interval)}"
            "</small></div>"
            for name, value, interval in tiles
        ),
        body="".join(body),
    )


def facts_table(facts: Facts) -> Table:
    """Return a table of names and values."""
    rows = tuple((key, _plain(value)) for key, value in facts.items())
    return Table(("", ""), rows, has_header=False)


def _plain(value: str | int | float | bool | None) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else value


def _markdown_block(block: Block) -> list[str]:
    if isinstance(block, Text):
        return ["", escape_markdown(block.text)]
    if isinstance(block, Picture):
        return []
    lines = ["| " + " | ".join(block.columns) + " |", "|" + "---|" * len(block.columns)]
    rows = ["| " + " | ".join(escape_markdown(str(c)) for c in row) + " |" for row in block.rows]
    return ["", *lines, *rows]


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is: on one line, no markup, links or HTML."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", line)


def _html_block(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Picture):
        data = base64.b64encode(block.png()).decode()
        caption = html.escape(block.caption)
        return f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"></figure>'
    return _html_table(block)


def _html_table(table: Table) -> str:
    if not table.has_header:
        rows = (
            f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(str(value))}</td></tr>"
            for key, value in table.rows
        )
        return f'<table class="facts">{"".join(rows)}</table>'
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    rows = ("<tr>" + "".join(map(_html_cell, table.columns, row)) + "</tr>" for row in table.rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _html_cell(column: str, cell: Cell) -> str:
    if column == "verdict":
        return f"<td>{badge(str(cell))}</td>"
    text = f"{cell:,}" if isinstance(cell, int) else html.escape(cell)
    is_number = column in _NUMBERS
    return f'<td class="n">{text}</td>' if is_number else f"<td>{text}</td>"


def badge(word: str) -> str:
    """Return a word as a coloured label, HTML."""
    kinds = {"passed": "good", "staging": "good", "production": "good", "failed": "bad"}
    kind = kinds.get(word, "warn" if word == "warning" else "")
    return f'<span class="badge {kind}">{html.escape(word)}</span>'


_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f3f5f7; color: #22303c;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
header, section { background: #fff; border: 1px solid #dbe1e6; border-radius: 8px;
  padding: 1.1rem 1.5rem; margin-bottom: 1rem; }
header { border-top: 4px solid #2563a8; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h1 small { color: #64727e; font-weight: 400; font-size: 1.1rem; white-space: nowrap; }
h2 { font-size: 1.1rem; margin: 0 0 .6rem; color: #1d4f86; }
p { margin: .5rem 0; white-space: pre-line; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .7rem;
  margin: 1rem 0 .3rem; }
.tiles div { background: #f3f5f7; border-radius: 6px; padding: .6rem .8rem; font-size: 1.5rem;
  line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles b, .tiles small { display: block; font-size: .8rem; font-weight: 400; color: #64727e; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; font-size: .92rem; }
th, td { text-align: left; padding: .32rem .7rem .32rem 0; border-bottom: 1px solid #e8ecef;
  vertical-align: top; overflow-wrap: anywhere; }
th { color: #64727e; font-weight: 500; }
thead th { border-bottom: 2px solid #dbe1e6; white-space: nowrap; }
tr:last-child > * { border-bottom: 0; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
.facts th { width: 13rem; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
.badge { display: inline-block; border-radius: 1rem; padding: 0 .6rem; font-size: .85rem;
  background: #e8ecef; color: #43525e; white-space: nowrap; }
.good { background: #dff1e5; color: #23663f; }
.bad { background: #fbe0dd; color: #9c2a1f; }
.warn { background: #fdeccf; color: #855207; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
<header>{header}<div class="tiles">{tiles}</div></header>
{body}
</main></body>
</html>
"""
