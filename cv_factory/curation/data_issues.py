"""The DataIssues: doubtful labels, near duplicates and outliers of a dataset."""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, TextIO

from pydantic import TypeAdapter

from cv_factory.artifacts.artifact import Artifact
from cv_factory.data.validation.image_issues import (
    ImageIssue,
    build_issue_sections,
    select_shown,
)
from cv_factory.reporting.html_page import render_html
from cv_factory.reporting.numbers import format_count
from cv_factory.reporting.page import Header, Text, Tile

#: Columns of the CSV, in order; ``id`` is what ``data.exclude`` reads.
CSV_COLUMNS = (
    *("id", "path", "part", "kind", "given", "likely", "score"),
    *("other_id", "other_part", "other_label"),
)


@dataclass(frozen=True)
class DataIssues(Artifact):
    """What speaks against the images of a dataset.

    Attributes:
        issues: By kind, the worst first.
        n_images: Images looked at.
        accuracy: Share of the training and validation images whose label a model that was not
            fitted on them predicts; None where no model could be fitted.
        notices: What could not be looked for, and why.
        thumbnails: PNGs (base64) of the images that a page shows, by id.
    """

    KIND: ClassVar[str] = "data_issues"

    issues: tuple[ImageIssue, ...]
    n_images: int
    accuracy: float | None = None
    notices: tuple[str, ...] = ()
    thumbnails: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of issues by kind."""
        return dict(Counter(issue.kind for issue in self.issues))

    @property
    def summary(self) -> str:
        """Number of issues of each kind, in words."""
        nouns = {
            "label": "doubtful label",
            "near_duplicate": "near duplicate",
            "outlier": "outlier",
        }
        return ", ".join(format_count(self.counts.get(k, 0), noun) for k, noun in nouns.items())

    @property
    def suspicious_labels(self) -> list[ImageIssue]:
        """The issues of kind ``label``, the most doubtful first."""
        return [issue for issue in self.issues if issue.kind == "label"]

    def write_csv(self, file: TextIO) -> None:
        """Write one row an issue, the worst of a kind first, with the columns ``CSV_COLUMNS``."""
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for i in self.issues:
            other = (i.other_id, i.other_part, i.other_label)
            score = f"{i.score:.6g}"
            writer.writerow(
                (i.id, i.source, i.part, i.kind, i.label, i.likely_label, score, *other)
            )

    def to_html(self) -> str:
        """Return the issues as one self-contained HTML page."""
        tiles = [
            Tile("images", f"{self.n_images:,}"),
            Tile("doubtful labels", f"{self.counts.get('label', 0):,}"),
            Tile("near duplicates", f"{self.counts.get('near_duplicate', 0):,}"),
            Tile("outliers", f"{self.counts.get('outlier', 0):,}"),
        ]
        if self.accuracy is not None:
            tiles.append(Tile("accuracy", f"{self.accuracy:.1%}", "out of fold, by given labels"))
        shown = select_shown(self.issues)
        sections = [*build_issue_sections(shown, self.counts, self.thumbnails)]
        if self.notices:
            sections.append(("Notices", [Text(notice) for notice in self.notices]))
        return render_html("Data issues", Header("Data issues"), tiles, sections)

    def _header(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        return TypeAdapter(cls).validate_python(body)
