"""Image issues: what speaks against single images or their labels, and its sections of a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cv_factory.reporting.page import Cell, Entry, Sections, Table, Text

IssueKind = Literal["label", "near_duplicate", "outlier"]

#: Issues of a kind that a page shows.
MAX_SHOWN = 30
_TITLES: Mapping[IssueKind, tuple[str, str]] = {
    "label": (
        "Doubtful labels",
        "The label disagrees with what models that were not fitted on the image predict from a "
        "backbone's features (confident learning). The first is the most doubtful; some are right, "
        "and only look like another class.",
    ),
    "near_duplicate": (
        "Near duplicates",
        "Pairs that a backbone and the pixels find all but the same, mirrored or not. In two parts "
        "of the split they make the test part too easy: put both into one group, or remove one.",
    ),
    "outlier": (
        "Outliers",
        "Images that lie far from all others in a backbone's features: drawings, blank or broken "
        "images, or rare ones, of which more would help.",
    ),
}


@dataclass(frozen=True)
class ImageIssue:
    """What speaks against one image.

    Attributes:
        kind: A doubtful label, a near duplicate of another image, or an outlier.
        index: Row of the image in the dataset.
        id: Of the image.
        source: Where the image lies.
        part: Of the split; empty in none.
        label: The given one; empty without.
        score: Of a label its self-confidence (the lower, the more doubtful), of a near duplicate
            the similarity (at most 1), of an outlier its distance to its neighbors (0 to 2).
        likely_label: What the label more likely is; for issues of kind ``label`` alone.
        other_index: Row of the image that this one is a near duplicate of; -1 for other kinds.
        other_id: Its id.
        other_part: Its part of the split.
        other_label: Its label.
    """

    kind: IssueKind
    index: int
    id: str
    source: str
    part: str
    label: str
    score: float
    likely_label: str = ""
    other_index: int = -1
    other_id: str = ""
    other_part: str = ""
    other_label: str = ""

    @property
    def is_across_parts(self) -> bool:
        """Whether it is a near duplicate of an image in another part of the split."""
        return bool(self.part and self.other_part and self.part != self.other_part)


def select_shown(issues: Sequence[ImageIssue]) -> list[ImageIssue]:
    """Return the first issues of each kind, which a page shows."""
    return [i for kind in _TITLES for i in [i for i in issues if i.kind == kind][:MAX_SHOWN]]


def build_issue_sections(
    issues: Sequence[ImageIssue], counts: Mapping[str, int], thumbnails: Mapping[str, str]
) -> Sections:
    """Return one section a kind that has issues.

    Args:
        issues: Those to show, the worst of a kind first.
        counts: How many there are in all, by kind.
        thumbnails: PNGs in base64 by the image's id.
    """
    sections: Sections = [
        (title, [Text(_describe_count(text, counts[kind])), _build_table(kind, shown, thumbnails)])
        for kind, (title, text) in _TITLES.items()
        if (shown := [issue for issue in issues if issue.kind == kind])
    ]
    return sections


def _describe_count(text: str, n: int) -> str:
    shown = f", the first {MAX_SHOWN} here" if n > MAX_SHOWN else ""
    return f"{text} In all {n:,}{shown}; run.py labels suspicious writes them as CSV."


def _build_table(
    kind: IssueKind, issues: Sequence[ImageIssue], thumbnails: Mapping[str, str]
) -> Table:
    columns = {
        "label": ("", "image", "part", "given", "likely", "self-confidence"),
        "near_duplicate": ("", "image", "part", "label", "near duplicate of", "part", "label"),
        "outlier": ("", "image", "part", "label", "distance"),
    }[kind]
    rows = tuple(_build_row(n, issue, thumbnails) for n, issue in enumerate(issues, 1))
    return Table(columns, rows)


def _build_row(n: int, issue: ImageIssue, thumbnails: Mapping[str, str]) -> tuple[Cell, ...]:
    image = _build_entry(issue.id, thumbnails)
    row: tuple[Cell, ...] = (n, image, issue.part or "none", issue.label)
    if issue.kind == "label":
        return (*row, issue.likely_label, f"{issue.score:.3f}")
    if issue.kind == "outlier":
        return (*row, f"{issue.score:.3f}")
    other = _build_entry(issue.other_id, thumbnails)
    return (*row, other, issue.other_part or "none", issue.other_label)


def _build_entry(id_: str, thumbnails: Mapping[str, str]) -> Entry:
    shown = {id_: thumbnails[id_]} if id_ in thumbnails else {}
    return Entry(title=id_, text="", thumbnails=shown)
