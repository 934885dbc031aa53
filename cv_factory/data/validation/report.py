"""The DataReport: the verdict on a dataset, expectation by expectation, as JSON and as a page."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import TypeAdapter

from cv_factory.artifacts.artifact import Artifact
from cv_factory.data.validation.image_issues import ImageIssue, build_issue_sections
from cv_factory.errors import DataRejectedError
from cv_factory.reporting.html_page import render_html
from cv_factory.reporting.numbers import format_count
from cv_factory.reporting.page import (
    Badge,
    Bar,
    Block,
    Cell,
    Entry,
    Header,
    Sections,
    Table,
    Text,
    Tile,
)

Severity = Literal["error", "warning"]

_LISTED_FAILURES = 5


@dataclass(frozen=True)
class ExpectationResult:
    """Result of one expectation.

    Attributes:
        name: Such as ``min_images_per_class``.
        severity: A failed ``error`` rejects the dataset, a failed ``warning`` does not.
        success: Whether the expectation was met.
        observed: What was found, for people.
        limit: What is allowed, for people.
        message: What the expectation demands, in one sentence.
        offending_ids: The first 20 images (or classes) that violate it.
        n_offending: How many violate it in all.
        remedy: What a failure can be answered with, beside other images or limits.
    """

    name: str
    severity: Severity
    success: bool
    observed: str
    limit: str
    message: str
    offending_ids: tuple[str, ...] = ()
    n_offending: int = 0
    remedy: str = ""

    @property
    def verdict(self) -> str:
        """``passed``, ``warning`` or ``failed``."""
        if self.success:
            return "passed"
        return "failed" if self.severity == "error" else "warning"


@dataclass(frozen=True)
class DataReport(Artifact):
    """The verdict on a dataset and its split.

    Attributes:
        expectations: One result per expectation.
        n_images: Images in the dataset.
        class_counts: Images by class name.
        split_counts: Images by part of the split, and in it by class name.
        unreadable: Id and reason of each image that was left out.
        notices: What a user should know of the reading of the images, one sentence each.
        thumbnails: PNGs (base64) of offending images, by id.
        issues: What a backbone's features say against single images, the first of each kind.
        issue_counts: How many there are in all, by kind.
    """

    KIND: ClassVar[str] = "data_report"

    expectations: tuple[ExpectationResult, ...]
    n_images: int
    class_counts: Mapping[str, int]
    split_counts: Mapping[str, Mapping[str, int]]
    unreadable: tuple[tuple[str, str], ...] = ()
    notices: tuple[str, ...] = ()
    thumbnails: Mapping[str, str] = field(default_factory=dict)
    issues: tuple[ImageIssue, ...] = ()
    issue_counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no expectation of severity ``error`` failed."""
        return all(result.verdict != "failed" for result in self.expectations)

    @property
    def failures(self) -> tuple[ExpectationResult, ...]:
        """The expectations that were not met, errors before warnings."""
        unmet = [result for result in self.expectations if not result.success]
        return tuple(sorted(unmet, key=lambda result: result.severity != "error"))

    @property
    def verdict(self) -> str:
        """``Passed``, ``Passed with 2 warnings`` or ``Refused``."""
        n = len(self.failures)
        if not self.ok:
            return "Refused"
        return f"Passed with {format_count(n, 'warning')}" if n else "Passed"

    @property
    def remarks(self) -> list[str]:
        """One line for each expectation that was not met, and for each notice."""
        return [
            f"{result.verdict}: {result.message} Found {result.observed}, allowed {result.limit}. "
            f"{result.remedy}".rstrip()
            for result in self.failures
        ] + [f"notice: {notice}" for notice in self.notices]

    def require_ok(self) -> Self:
        """Return the report itself if the dataset passed.

        Raises:
            DataRejectedError: An expectation of severity ``error`` failed; the message names each
                of them with the first images that violate it.
        """
        errors = [result for result in self.failures if result.severity == "error"]
        if not errors:
            return self
        listed = "\n".join(f"  - {_failure_line(result)}" for result in errors)
        raise DataRejectedError(
            f"The data was refused: {len(errors)} of {len(self.expectations)} expectations "
            f"failed.\n{listed}\n"
            "Correct the images or labels named here, or change the limits in the section "
            "'validation' of the configuration."
        )

    def _header(self) -> dict[str, Any]:
        header = asdict(self)
        if not self.issues:
            del header["issues"], header["issue_counts"]
        return header

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        return TypeAdapter(cls).validate_python(body)

    def to_html(self) -> str:
        """Return the report as one self-contained HTML page."""
        verdicts = [result.verdict for result in self.expectations]
        header = Header("Data report", badge=Badge(self.verdict))
        tiles = [
            Tile("images", f"{self.n_images:,}"),
            Tile("classes", f"{len(self.class_counts):,}"),
            Tile("expectations met", f"{verdicts.count('passed')} / {len(verdicts)}"),
            Tile("warnings", str(verdicts.count("warning"))),
            Tile("unreadable", f"{len(self.unreadable):,}"),
        ]
        sections: Sections = [
            ("Expectations", [_expectations_table(self.expectations, self.thumbnails)]),
            *build_issue_sections(self.issues, self.issue_counts, self.thumbnails),
            ("Classes", _class_blocks(self.class_counts, self.split_counts)),
            ("Notices", [Text(notice) for notice in self.notices]),
            ("Left out as unreadable", _unreadable_blocks(self.unreadable)),
        ]
        return render_html("Data report", header, tiles, [s for s in sections if s[1]])


def _failure_line(result: ExpectationResult) -> str:
    line = f"{result.name}: {result.message} Found {result.observed}, allowed {result.limit}."
    shown = ", ".join(result.offending_ids[:_LISTED_FAILURES])
    # What was found names classes with their sizes.
    if shown and not all(name in result.observed for name in result.offending_ids):
        more = result.n_offending - min(len(result.offending_ids), _LISTED_FAILURES)
        line += f" Concerns: {shown}{f' and {more:,} more' if more > 0 else ''}."
    return f"{line} {result.remedy}".rstrip()


def _expectations_table(
    results: tuple[ExpectationResult, ...], thumbnails: Mapping[str, str]
) -> Table:
    order = ("failed", "warning", "passed")
    rows = [
        (Badge(result.verdict), _expectation_entry(result, thumbnails), result.observed,
         result.limit)
        for result in sorted(results, key=lambda result: order.index(result.verdict))
    ]  # fmt: skip
    return Table(("verdict", "expectation", "found", "allowed"), tuple(rows))


def _expectation_entry(result: ExpectationResult, thumbnails: Mapping[str, str]) -> Entry:
    ids = result.offending_ids
    shown = () if result.success else ids
    return Entry(
        title=result.name,
        text=f"{result.message} {result.remedy}".rstrip(),
        names=ids,
        n_more_names=result.n_offending - len(ids) if ids else 0,
        thumbnails={id_: thumbnails[id_] for id_ in shown if id_ in thumbnails},
    )


def _class_blocks(counts: Mapping[str, int], parts: Mapping[str, Mapping[str, int]]) -> list[Block]:
    if not counts:
        return []
    largest = max([*counts.values(), 1])
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, Bar(n / largest), n, *(part.get(name, 0) for part in parts.values()))
        for name, n in counts.items()
    )
    return [Table(("class", "", "images", *parts), rows)]


def _unreadable_blocks(unreadable: tuple[tuple[str, str], ...]) -> list[Block]:
    return [Table(("image", "reason"), unreadable)] if unreadable else []
