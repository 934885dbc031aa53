"""The model card, as Markdown and as one HTML page that needs nothing beside it.

Sections after Mitchell et al. 2019, "Model Cards for Model Reporting". Every figure about quality
comes from the ``Evaluation``; everything else is handed in as plain values.
"""

import base64
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from cv_factory.evaluation import plots
from cv_factory.evaluation.evaluation import Evaluation, Metric
from cv_factory.evaluation.gates import GateVerdict

Facts = Mapping[str, str | int | float | bool | None]
Cell = str | int

_METRIC_TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "roc_auc": "ROC AUC",
    "log_loss": "Log loss",
}
_N_CONFUSED = 10


@dataclass(frozen=True)
class DataCheck:
    """One expectation about the dataset and what came of it.

    Attributes:
        name: The expectation in words.
        status: Such as ``passed``, ``warning`` or ``failed``.
        detail: What was seen.
    """

    name: str
    status: str
    detail: str


@dataclass(frozen=True)
class CardContent:
    """Everything that a model card shows.

    Attributes:
        model_name: Name in the registry.
        version: Version in the registry.
        stage: Such as ``staging``; None if the version has none.
        description: What the model is and does, in a few sentences.
        model: Facts about the model, such as architecture and number of parameters.
        data: Facts about the dataset, such as source, images, classes and split sizes.
        data_verdict: The verdict on the dataset, such as ``passed``.
        data_checks: The expectations behind it.
        training: Training settings by name.
        evaluation: The source of every quality figure.
        verdicts: What the gates said.
        lineage: Git commit, dirty, config hash, data hash, stack and the like.
        packages: Versions by package name.
        intended_use: For what the model is meant, and for what not; left out if empty.
        limits: Known limits; left out if empty.
        pictures: Further PNG by caption, such as training curves; shown in the HTML only.
    """

    model_name: str
    version: str
    stage: str | None
    description: str
    model: Facts
    data: Facts
    data_verdict: str
    data_checks: Sequence[DataCheck]
    training: Facts
    evaluation: Evaluation
    verdicts: Sequence[GateVerdict]
    lineage: Facts
    packages: Mapping[str, str]
    intended_use: str = ""
    limits: str = ""
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Text:
    text: str


@dataclass(frozen=True)
class _Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    # A table of facts has no header, and its first column names the rows.
    has_header: bool = True


@dataclass(frozen=True)
class _Picture:
    caption: str
    png: Callable[[], bytes]


_Block = _Text | _Table | _Picture
_Sections = list[tuple[str, list[_Block]]]


def render_markdown(content: CardContent) -> str:
    """Return the card as Markdown (GitHub's dialect), without the pictures."""
    lines = [
        f"# {_escape_markdown(content.model_name)}, version {_escape_markdown(content.version)}"
    ]
    lines += [
        "",
        f"Stage: **{_escape_markdown(content.stage or 'none')}** · {_gate_summary(content)}",
    ]
    for title, blocks in _sections(content):
        shown = [line for block in blocks for line in _markdown_block(block)]
        if shown:
            lines += ["", f"## {title}", *shown]
    return "\n".join(lines) + "\n"


def render_html(content: CardContent) -> str:
    """Return the card as one HTML page: pictures inside, no scripts, no external links."""
    body = [
        f"<section><h2>{html.escape(title)}</h2>{''.join(map(_html_block, blocks))}</section>"
        for title, blocks in _sections(content)
    ]
    name, version = html.escape(content.model_name), html.escape(content.version)
    return _PAGE.format(
        title=f"{name} {version}: model card",
        style=_STYLE,
        header=f"<h1>{name} <small>version {version}</small></h1>"
        f"<p>{_badge(content.stage or 'no stage')} <span>{_gate_summary(content)}</span></p>",
        tiles="".join(
            f"<div><b>{html.escape(title)}</b>{html.escape(value)}<small>{html.escape(interval)}"
            "</small></div>"
            for title, value, interval in _metric_rows(content.evaluation)
        ),
        body="".join(body),
    )


def _sections(content: CardContent) -> _Sections:
    evaluation = content.evaluation
    percent = f"{100 * evaluation.confidence:g} %"
    sections: _Sections = [
        ("Model", [_Text(content.description), _facts(content.model)]),
        ("Intended use", [_Text(content.intended_use)] if content.intended_use else []),
        ("Gates", [_gate_table(content.verdicts)]),
        (
            "Metrics",
            [
                _Text(
                    f"The exported predictor on {evaluation.n_images:,} test images; "
                    f"{percent} intervals from bootstrap resamples of these images."
                ),
                _Table(("metric", "value", f"{percent} interval"), _metric_rows(evaluation)),
            ],
        ),
        ("Quality by class", _class_blocks(evaluation)),
        ("Limits", [_Text(content.limits)] if content.limits else []),
        (
            "Data",
            [
                _facts(content.data),
                _Text(f"Verdict of the data validation: {content.data_verdict}."),
                _Table(
                    ("expectation", "verdict", "observed"),
                    tuple(
                        (check.name, check.status, check.detail) for check in content.data_checks
                    ),
                ),
            ],
        ),
        ("Training", [_facts(content.training)]),
        ("Pictures", [_Picture(c, partial(bytes, png)) for c, png in content.pictures.items()]),
        (
            "Lineage",
            [
                _facts({**content.lineage, "predictor": evaluation.predictor_fingerprint}),
                _Text("Packages: " + ", ".join(f"{k} {v}" for k, v in content.packages.items())),
            ],
        ),
    ]
    return [(title, blocks) for title, blocks in sections if blocks]


def _class_blocks(evaluation: Evaluation) -> list[_Block]:
    rows = evaluation.per_class
    names = evaluation.class_names

    def bars() -> bytes:
        columns = [[getattr(row, name) for row in rows] for name in ("precision", "recall", "f1")]
        return plots.per_class_bars(names, *columns)

    confused = evaluation.most_confused(_N_CONFUSED)
    table = _Table(
        ("class", "precision", "recall", "F1", "test images"),
        tuple((r.name, *map(_figure, (r.precision, r.recall, r.f1)), r.support) for r in rows),
    )
    return [
        table,
        _Picture("Precision, recall and F1", bars),
        _Picture("Confusion matrix", lambda: plots.confusion_matrix(evaluation.confusion, names)),
        _Table(("true class", "taken for", "images"), tuple(confused))
        if confused
        else _Text("No test image was taken for another class."),
    ]


def _gate_table(verdicts: Sequence[GateVerdict]) -> _Block:
    if not verdicts:
        return _Text("No gates are configured.")
    rows = tuple((v.gate, v.status.replace("_", " "), v.reason) for v in verdicts)
    return _Table(("gate", "verdict", "reason"), rows)


def _gate_summary(content: CardContent) -> str:
    n = len(content.verdicts)
    failed = sum(verdict.status == "failed" for verdict in content.verdicts)
    skipped = sum(verdict.status == "not_applicable" for verdict in content.verdicts)
    if n == 0:
        return "no gates configured"
    parts = [f"{n - failed - skipped} of {n} gates passed"]
    if failed:
        parts.append(f"{failed} failed")
    if skipped:
        parts.append(f"{skipped} not applicable")
    return ", ".join(parts)


def _metric_rows(evaluation: Evaluation) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (_METRIC_TITLES.get(name, name), _figure(metric.value), _interval(metric))
        for name, metric in evaluation.metrics.items()
    )


def _interval(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return metric.reason or ""
    return f"{_figure(metric.low)} to {_figure(metric.high)}"


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _facts(facts: Facts) -> _Table:
    rows = tuple((key, _plain(value)) for key, value in facts.items())
    return _Table(("", ""), rows, has_header=False)


def _plain(value: str | int | float | bool | None) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else value


def _markdown_block(block: _Block) -> list[str]:
    if isinstance(block, _Text):
        return ["", _escape_markdown(block.text)]
    if isinstance(block, _Picture):
        return []
    lines = ["| " + " | ".join(block.columns) + " |", "|" + "---|" * len(block.columns)]
    rows = ["| " + " | ".join(_escape_markdown(str(c)) for c in row) + " |" for row in block.rows]
    return ["", *lines, *rows]


def _escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is: on one line, no markup, links or HTML."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", line)


def _html_block(block: _Block) -> str:
    if isinstance(block, _Text):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, _Picture):
        data = base64.b64encode(block.png()).decode()
        caption = html.escape(block.caption)
        return f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"></figure>'
    return _html_table(block)


def _html_table(table: _Table) -> str:
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
        return f"<td>{_badge(str(cell))}</td>"
    text = f"{cell:,}" if isinstance(cell, int) else html.escape(cell)
    is_number = column in ("value", "precision", "recall", "F1", "test images", "images")
    return f'<td class="n">{text}</td>' if is_number else f"<td>{text}</td>"


def _badge(word: str) -> str:
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
figure { margin: 1rem 0; text-align: center; }
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
