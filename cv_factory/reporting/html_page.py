"""Renders pages as one self-contained HTML file: no scripts, no external links.

All content is escaped: no markup, links or scripts come of it.
"""

import base64
from collections.abc import Sequence
from html import escape

from cv_factory.reporting.page import (
    Badge,
    Bar,
    Block,
    Cell,
    Entry,
    Header,
    Picture,
    Sections,
    Table,
    Text,
    Tile,
)

_NUMERIC_COLUMNS = (
    *("value", "precision", "recall", "F1", "test images", "images", "accuracy", "log loss"),
    *("severity 1", "severity 2", "severity 3", "confidence", "interval"),
    *("share of right answers", "evidence", "alarm at", "share"),
)
#: Rows of a table that are shown without scrolling.
_MAX_ROWS = 60
_BADGE_CLASSES = {
    **dict.fromkeys(("passed", "silent", "staging", "production"), "good"),
    **dict.fromkeys(("alarm", "failed", "refused"), "bad"),
    **dict.fromkeys(("warning", "overridden", "not stated", "not enough evidence"), "warn"),
}


def render_html(
    title: str,
    header: Header,
    tiles: Sequence[Tile],
    sections: Sections,
    folded_sections: Sections = (),
) -> str:
    """Return a page as HTML.

    Args:
        title: Title of the window.
        header: Top of the page.
        tiles: Figures below the header.
        sections: Title and content of each.
        folded_sections: Sections below them whose content is shown by a click on the title.
    """
    body = [
        f"<section><h2>{escape(heading)}</h2>{''.join(map(_render_block, blocks))}</section>"
        for heading, blocks in sections
    ]
    body += [
        f"<section><details><summary>{escape(heading)}</summary>"
        f"{''.join(map(_render_block, blocks))}</details></section>"
        for heading, blocks in folded_sections
    ]
    return _PAGE.format(
        title=escape(title),
        style=STYLE,
        header=_render_header(header),
        tiles=f'<div class="tiles">{"".join(map(_render_tile, tiles))}</div>' if tiles else "",
        body="".join(body),
    )


def _render_header(header: Header) -> str:
    addition = f" <small>{escape(header.addition)}</small>" if header.addition else ""
    badge = _render_badge(header.badge) + " " if header.badge else ""
    text = f"<span>{escape(header.text)}</span>"
    return f"<h1>{escape(header.heading)}{addition}</h1><p>{badge}{text}</p>"


def _render_tile(tile: Tile) -> str:
    return (
        f"<div><b>{escape(tile.name)}</b>{escape(tile.value)}<small>{escape(tile.note)}</small>"
        "</div>"
    )


def _render_badge(badge: Badge) -> str:
    word = badge.word.lower()
    css_class = _BADGE_CLASSES.get(word, "warn" if "warning" in word else "")
    return f'<span class="badge {css_class}">{escape(badge.word)}</span>'


def _render_block(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Picture):
        png = base64.b64encode(block.png).decode()
        return f"<figure>{_render_png(png, block.caption)}</figure>"
    return _render_table(block)


def _render_png(base64_png: str, caption: str) -> str:
    return f'<img alt="{escape(caption)}" src="data:image/png;base64,{escape(base64_png)}">'


def _render_table(table: Table) -> str:
    if not table.has_header:
        rows = (
            f"<tr><th>{_render_content(name)}</th><td>{_render_content(value)}</td></tr>"
            for name, value in table.rows
        )
        return f'<table class="facts">{"".join(rows)}</table>'
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = ("<tr>" + "".join(map(_render_cell, table.columns, row)) + "</tr>" for row in table.rows)
    css_class = "wide" if len(table.rows) <= _MAX_ROWS else "wide long"
    return (
        f'<div class="{css_class}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _render_content(cell: Cell) -> str:
    return _render_badge(cell) if isinstance(cell, Badge) else escape(str(cell))


def _render_cell(column: str, cell: Cell) -> str:
    if isinstance(cell, Badge):
        return f"<td>{_render_content(cell)}</td>"
    if isinstance(cell, Bar):
        return f'<td class="bar"><i style="width:{100 * cell.fraction:.1f}%"></i></td>'
    if isinstance(cell, Entry):
        return f"<td>{_render_entry(cell)}</td>"
    text = f"{cell:,}" if isinstance(cell, int) else escape(cell)
    is_number = isinstance(cell, int) or column in _NUMERIC_COLUMNS
    return f'<td class="n">{text}</td>' if is_number else f"<td>{text}</td>"


def _render_entry(entry: Entry) -> str:
    thumbnails = "".join(
        f"<figure>{_render_png(png, '')}<figcaption>{escape(name)}</figcaption></figure>"
        for name, png in entry.thumbnails.items()
    )
    names = " ".join(f"<code>{escape(name)}</code>" for name in entry.names)
    more = f" and {entry.n_more_names:,} more" if entry.n_more_names > 0 else ""
    return (
        f"<strong>{escape(entry.title)}</strong><p>{escape(entry.text)}</p>"
        + (f'<div class="thumbnails">{thumbnails}</div>' if thumbnails else "")
        + (f"<p>{names}{more}</p>" if names else "")
    )


#: Style sheet of pages; the service's pages have it, too.
STYLE = """
:root { color-scheme: light; --page: #f3f5f7; --sheet: #fff; --line: #dbe1e6; --rule: #e8ecef;
  --text: #22303c; --muted: #64727e; --accent: #2563a8; --title: #1d4f86; --badge: #43525e;
  --good: #23663f; --good-sheet: #dff1e5; --bad: #9c2a1f; --bad-sheet: #fbe0dd;
  --warn: #855207; --warn-sheet: #fdeccf; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
header, section { background: var(--sheet); border: 1px solid var(--line); border-radius: 8px;
  padding: 1.1rem 1.5rem; margin-bottom: 1rem; }
header { border-top: 4px solid var(--accent); }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h1 small { color: var(--muted); font-weight: 400; font-size: 1.1rem; white-space: nowrap; }
h2 { font-size: 1.1rem; margin: 0 0 .6rem; color: var(--title); }
summary { font-size: 1.1rem; font-weight: 600; color: var(--title); cursor: pointer; }
details[open] summary { margin-bottom: .6rem; }
p { margin: .5rem 0; white-space: pre-line; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .7rem;
  margin: 1rem 0 .3rem; }
.tiles div { background: var(--page); border-radius: 6px; padding: .6rem .8rem; font-size: 1.5rem;
  line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles b, .tiles small { display: block; font-size: .8rem; font-weight: 400; color: var(--muted); }
.wide { overflow-x: auto; }
.long { max-height: 40rem; overflow-y: auto; border-bottom: 1px solid var(--line); }
.long thead th { position: sticky; top: 0; background: var(--sheet); }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; font-size: .92rem; }
th, td { text-align: left; padding: .32rem .7rem .32rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--muted); font-weight: 500; }
thead th { border-bottom: 2px solid var(--line); white-space: nowrap; }
tr:last-child > * { border-bottom: 0; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
.facts th { width: 13rem; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
.badge { display: inline-block; border-radius: 1rem; padding: 0 .6rem; font-size: .85rem;
  background: var(--rule); color: var(--badge); white-space: nowrap; }
.good { background: var(--good-sheet); color: var(--good); }
.bad { background: var(--bad-sheet); color: var(--bad); }
.warn { background: var(--warn-sheet); color: var(--warn); }
td strong { font-weight: 600; }
td p { margin: .1rem 0 0; color: var(--muted); font-size: .87rem; }
code { font: .8rem ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; padding: 0 .25rem;
  background: var(--page); border: 1px solid var(--line); border-radius: 4px;
  overflow-wrap: anywhere; }
.bar { min-width: 12rem; width: 38%; }
.bar i { display: block; height: .6rem; margin-top: .4rem; border-radius: 3px; min-width: 1px;
  background: var(--accent); }
.thumbnails { display: flex; flex-wrap: wrap; gap: .5rem; margin-top: .4rem; }
.thumbnails figure { margin: 0; width: 4.5rem; }
.thumbnails img { width: 4rem; height: 4rem; object-fit: contain; image-rendering: pixelated;
  background: var(--page); border: 1px solid var(--line); border-radius: 4px; }
figcaption { color: var(--muted); font-size: .65rem; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
@media print { body { background: var(--sheet); } .long { max-height: none; }
  section { break-inside: avoid; } }
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
<header>{header}{tiles}</header>
{body}
</main></body>
</html>
"""
