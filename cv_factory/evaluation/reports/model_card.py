"""The model card, as Markdown and as one HTML page that needs nothing beside it.

Sections after Mitchell et al. 2019, "Model Cards for Model Reporting": first what a person decides
on (verdict, use, weak points, data), then the rest, folded. Every figure about quality comes from
the ``Evaluation``; everything else is handed in as plain values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

from cv_factory.config.card import CardConfig
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.gate_verdict import GateVerdict
from cv_factory.evaluation.reports.evaluation_report import (
    decisive_tiles,
    quality_sections,
    weak_points,
)
from cv_factory.inference.reference import EstimatorError
from cv_factory.reporting import html_page, markdown_page
from cv_factory.reporting.page import (
    Badge,
    Block,
    Cell,
    Facts,
    Header,
    Picture,
    Sections,
    Table,
    Text,
    facts_table,
)

_STATUS_ORDER = ("failed", "passed", "not_applicable")


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
        statements: What only people can say: owner, use, harm, origin of the data.
        overrides: Gates that a person overrode, who and why; a sentence each.
        estimator_errors: How far estimates of the accuracy without labels were off.
        warnings: What a person should know before deciding; a sentence each.
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
    statements: CardConfig = field(default_factory=CardConfig)
    overrides: Sequence[str] = ()
    estimator_errors: Sequence[EstimatorError] = ()
    warnings: Sequence[str] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def sections(self) -> Sections:
        """What a person decides on; sections that are not empty."""
        return _with_content(
            ("Verdict", _verdict_blocks(self)),
            ("Use", _use_blocks(self)),
            ("Weak points", [weak_points(self.evaluation)]),
            ("Data statement", _data_blocks(self)),
        )

    @cached_property
    def quality_sections(self) -> Sections:
        """Sections that the card shares with the report of the evaluation."""
        return quality_sections(self.evaluation)

    @cached_property
    def detail_sections(self) -> Sections:
        """The evidence behind it; sections that are not empty."""
        return _with_content(
            ("Model", [facts_table(self.model)]),
            *self.quality_sections,
            ("Accuracy without labels", _estimator_blocks(self.estimator_errors)),
            ("Data validation", [_data_check_table(self.data_checks)]),
            ("Training", [facts_table(self.training)]),
            ("Pictures", [Picture(c, partial(bytes, png)) for c, png in self.pictures.items()]),
            ("Lineage", _lineage_blocks(self)),
        )

    @property
    def all_pictures(self) -> list[Picture]:
        """Pictures of all sections; each is drawn once, for the page or for who asks first."""
        sections = (*self.sections, *self.detail_sections)
        return [b for _, blocks in sections for b in blocks if isinstance(b, Picture)]


def render_markdown(content: CardContent) -> str:
    """Return the card as Markdown (GitHub's dialect), without the pictures."""
    stage = markdown_page.escape_markdown(content.stage or "none")
    return markdown_page.render_markdown(
        f"{content.model_name}, version {content.version}",
        f"Stage: **{stage}** · {_gate_summary(content)}",
        [*content.sections, *content.detail_sections],
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
        decisive_tiles(content.evaluation),
        content.sections,
        content.detail_sections,
    )


def _with_content(*sections: tuple[str, list[Block]]) -> Sections:
    return [(title, blocks) for title, blocks in sections if blocks]


def _verdict_blocks(content: CardContent) -> list[Block]:
    statements = content.statements
    warnings = [*content.warnings]
    warnings += [f"{c.name}: {c.detail}" for c in content.data_checks if c.status != "passed"]
    if missing := statements.unanswered:
        keys = ", ".join(f"register.card.{key}" for key in missing)
        warnings.append(f"This card is incomplete: set {keys}, and run the training again.")
    rows: list[tuple[Cell, ...]] = [(Badge("overridden"), text) for text in content.overrides]
    rows += [(Badge("warning"), text) for text in warnings]
    return [
        _gate_table(content.verdicts),
        Text(f"Approved by: {content.approver or 'nobody yet'}."),
        *([Table(("", ""), tuple(rows), has_header=False)] if rows else []),
    ]


def _use_blocks(content: CardContent) -> list[Block]:
    s = content.statements
    rows = {
        "intended use": s.intended_use,
        "out-of-scope use": s.out_of_scope_use,
        "ethical considerations": s.ethical_considerations,
        "owner": s.owner,
    }
    return [Text(content.description), _statement_table(rows)]


def _statement_table(statements: Mapping[str, str]) -> Table:
    rows = ((name, text.strip() or Badge("not stated")) for name, text in statements.items())
    return Table(("", ""), tuple(rows), has_header=False)


def _data_blocks(content: CardContent) -> list[Block]:
    return [
        _statement_table({"origin and labels": content.statements.data_statement}),
        facts_table(content.data),
        Text(f"Verdict of the data validation: {content.data_verdict}."),
    ]


def _data_check_table(checks: Sequence[DataCheck]) -> Table:
    rows = tuple((check.name, Badge(check.status), check.detail) for check in checks)
    return Table(("expectation", "verdict", "observed"), rows)


def _estimator_blocks(errors: Sequence[EstimatorError]) -> list[Block]:
    """Return a table of the largest error of each estimator on each kind of images, in points."""
    if not errors:
        return []
    estimators = sorted({row.estimator for row in errors})
    kinds = list(dict.fromkeys(row.corruption for row in errors))
    rows = []
    for kind in kinds:
        of_kind = [row for row in errors if row.corruption == kind]
        largest = (_largest_error(of_kind, estimator) for estimator in estimators)
        name = "as they are" if kind == "none" else kind.replace("_", " ")
        accuracies = [row.accuracy for row in of_kind]
        rows.append((name, _percent_range(accuracies), *largest))
    text = (
        "Monitoring estimates the accuracy where there are no labels. On "
        f"{errors[0].n_images:,} test images, corrupted at three severities, an estimate was off "
        "by at most so many points (+: too high); in the field it may be off by as much, or by "
        "more where images change in another way."
    )
    header = ("images", "accuracy", *(name.replace("_", " ") for name in estimators))
    return [Text(text), Table(header, tuple(rows))]


def _largest_error(errors: Sequence[EstimatorError], estimator: str) -> str:
    error = max((row.error for row in errors if row.estimator == estimator), key=abs)
    return f"{100 * error:+.1f}"


def _percent_range(shares: Sequence[float]) -> str:
    low, high = min(shares), max(shares)
    return f"{low:.1%}" if low == high else f"{low:.1%} to {high:.1%}"


def _lineage_blocks(content: CardContent) -> list[Block]:
    predictor = content.evaluation.predictor_fingerprint
    return [
        facts_table({**content.lineage, "predictor": predictor}),
        Text("Packages: " + ", ".join(f"{k} {v}" for k, v in content.packages.items())),
    ]


def _gate_table(verdicts: Sequence[GateVerdict]) -> Block:
    if not verdicts:
        return Text("No gates are configured.")
    ordered = sorted(verdicts, key=lambda verdict: _STATUS_ORDER.index(verdict.status))
    rows = tuple((v.gate, Badge(v.status.replace("_", " ")), v.reason) for v in ordered)
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
    if content.overrides:
        parts.append(f"{len(content.overrides)} overridden")
    if skipped:
        parts.append(f"{skipped} not applicable")
    return ", ".join(parts)
