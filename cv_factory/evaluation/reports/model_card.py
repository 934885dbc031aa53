"""The model card, as Markdown and as one HTML page that needs nothing beside it.

Sections after Mitchell et al. 2019, "Model Cards for Model Reporting". Every figure about quality
comes from the ``Evaluation``; everything else is handed in as plain values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.gates import GateVerdict
from cv_factory.evaluation.reports.evaluation_report import metric_tiles, quality_sections
from cv_factory.reporting import html_page, markdown_page
from cv_factory.reporting.page import (
    Badge,
    Block,
    Facts,
    Header,
    Picture,
    Sections,
    Table,
    Text,
    facts_table,
)


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
    """Content of a model card.

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
        approver: Who signed the version off, and why; None if nobody did.
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
    approver: str | None = None
    intended_use: str = ""
    limits: str = ""
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def render_markdown(content: CardContent) -> str:
    """Return the card as Markdown (GitHub's dialect), without the pictures."""
    stage = markdown_page.escape_markdown(content.stage or "none")
    return markdown_page.render_markdown(
        f"{content.model_name}, version {content.version}",
        f"Stage: **{stage}** · {_gate_summary(content)}",
        _sections(content),
    )


def render_html(content: CardContent) -> str:
    """Return the card as one HTML page: pictures inside, no scripts, no external links."""
    return html_page.render_html(
        f"{content.model_name} {content.version}: model card",
        Header(
            content.model_name,
            f"version {content.version}",
            Badge(content.stage or "no stage"),
            _gate_summary(content),
        ),
        metric_tiles(content.evaluation),
        _sections(content),
    )


def _sections(content: CardContent) -> Sections:
    sections: Sections = [
        ("Model", [Text(content.description), facts_table(content.model)]),
        ("Intended use", [Text(content.intended_use)] if content.intended_use else []),
        ("Gates", [_gate_table(content.verdicts), _approval(content)]),
        *quality_sections(content.evaluation),
        ("Limits", [Text(content.limits)] if content.limits else []),
        ("Data", _data_blocks(content)),
        ("Training", [facts_table(content.training)]),
        ("Pictures", [Picture(c, partial(bytes, png)) for c, png in content.pictures.items()]),
        ("Lineage", _lineage_blocks(content)),
    ]
    return [(title, blocks) for title, blocks in sections if blocks]


def _data_blocks(content: CardContent) -> list[Block]:
    checks = tuple((check.name, Badge(check.status), check.detail) for check in content.data_checks)
    return [
        facts_table(content.data),
        Text(f"Verdict of the data validation: {content.data_verdict}."),
        Table(("expectation", "verdict", "observed"), checks),
    ]


def _lineage_blocks(content: CardContent) -> list[Block]:
    predictor = content.evaluation.predictor_fingerprint
    return [
        facts_table({**content.lineage, "predictor": predictor}),
        Text("Packages: " + ", ".join(f"{k} {v}" for k, v in content.packages.items())),
    ]


def _approval(content: CardContent) -> Block:
    return Text(f"Approved by: {content.approver or 'nobody yet'}.")


def _gate_table(verdicts: Sequence[GateVerdict]) -> Block:
    if not verdicts:
        return Text("No gates are configured.")
    rows = tuple((v.gate, Badge(v.status.replace("_", " ")), v.reason) for v in verdicts)
    return Table(("gate", "verdict", "reason"), rows)


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
