"""The DataReport: the verdict on a dataset, expectation by expectation, as JSON and as a page."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import TypeAdapter

from cv_factory.artifacts.artifact import Artifact
from cv_factory.errors import DataRejectedError

Severity = Literal["error", "warning"]

_LISTED_FAILURES = 5


@dataclass(frozen=True)
class ExpectationResult:
    """What one expectation found.

    Attributes:
        name: Such as ``min_images_per_class``.
        severity: A failed ``error`` rejects the dataset, a failed ``warning`` does not.
        success: Whether the expectation was met.
        observed: What was found, for people.
        limit: What is allowed, for people.
        message: What the expectation demands, in one sentence.
        offending_ids: The first 20 images (or classes) that violate it.
        n_offending: How many violate it in all.
    """

    name: str
    severity: Severity
    success: bool
    observed: str
    limit: str
    message: str
    offending_ids: tuple[str, ...] = ()
    n_offending: int = 0

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
        thumbnails: PNGs (base64) of offending images, by id.
    """

    KIND: ClassVar[str] = "data_report"

    expectations: tuple[ExpectationResult, ...]
    n_images: int
    class_counts: Mapping[str, int]
    split_counts: Mapping[str, Mapping[str, int]]
    unreadable: tuple[tuple[str, str], ...] = ()
    thumbnails: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no expectation of severity ``error`` failed."""
        return all(result.verdict != "failed" for result in self.expectations)

    @property
    def failures(self) -> tuple[ExpectationResult, ...]:
        """The expectations that were not met, errors before warnings."""
        unmet = [result for result in self.expectations if not result.success]
        return tuple(sorted(unmet, key=lambda result: result.severity != "error"))

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
        return asdict(self)

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        return TypeAdapter(cls).validate_python(body)

    def to_html(self) -> str:
        """Render a page that needs nothing but itself: no links, scripts, fonts or pictures."""
        title, badge = ("Passed", "passed") if self.ok else ("Refused", "failed")
        warnings = sum(result.verdict == "warning" for result in self.expectations)
        failed = sum(result.verdict == "failed" for result in self.expectations)
        tiles = {
            "images": f"{self.n_images:,}",
            "classes": f"{len(self.class_counts):,}",
            "expectations met": f"{len(self.expectations) - failed - warnings} / "
            f"{len(self.expectations)}",
            "warnings": str(warnings),
            "unreadable": f"{len(self.unreadable):,}",
        }
        return "".join(
            [
                "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>",
                f"<title>Data report</title><style>{_CSS}</style></head><body><main>",
                f"<header><h1>Data report</h1><span class='badge {badge}'>{title}</span></header>",
                "<section class='tiles'>",
                *(
                    f"<div><b>{escape(v)}</b><span>{escape(k)}</span></div>"
                    for k, v in tiles.items()
                ),
                "</section>",
                _expectations_table(self.expectations, self.thumbnails),
                _class_table(self.class_counts, self.split_counts),
                _unreadable_table(self.unreadable),
                "</main></body></html>",
            ]
        )


def _failure_line(result: ExpectationResult) -> str:
    line = f"{result.name}: {result.message} Found {result.observed}, allowed {result.limit}."
    shown = ", ".join(result.offending_ids[:_LISTED_FAILURES])
    if shown:
        more = result.n_offending - min(len(result.offending_ids), _LISTED_FAILURES)
        line += f" Concerns: {shown}{f' and {more:,} more' if more > 0 else ''}."
    return line


def _expectations_table(
    results: tuple[ExpectationResult, ...], thumbnails: Mapping[str, str]
) -> str:
    order = {"failed": 0, "warning": 1, "passed": 2}
    rows = []
    for result in sorted(results, key=lambda r: order[r.verdict]):
        rows.append(
            f"<tr><td><span class='badge {result.verdict}'>{result.verdict}</span></td>"
            f"<td><b>{escape(result.name)}</b><p>{escape(result.message)}</p>"
            f"{_offending(result, thumbnails)}</td>"
            f"<td class='n'>{escape(result.observed)}</td>"
            f"<td class='n'>{escape(result.limit)}</td></tr>"
        )
    return (
        "<h2>Expectations</h2><table><thead><tr><th></th><th>Expectation</th>"
        "<th class='n'>Found</th><th class='n'>Allowed</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _offending(result: ExpectationResult, thumbnails: Mapping[str, str]) -> str:
    if not result.offending_ids:
        return ""
    shown = "".join(
        f"<figure><img alt='' src='data:image/png;base64,{escape(thumbnails[name])}'>"
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name in result.offending_ids
        if name in thumbnails and not result.success
    )
    listed = "".join(f"<code>{escape(name)}</code> " for name in result.offending_ids)
    more = result.n_offending - len(result.offending_ids)
    pictures = f"<div class='pictures'>{shown}</div>" if shown else ""
    return f"{pictures}<p>{listed}{f'and {more:,} more' if more > 0 else ''}</p>"


def _class_table(counts: Mapping[str, int], parts: Mapping[str, Mapping[str, int]]) -> str:
    if not counts:
        return ""
    largest = max([*counts.values(), 1])
    heads = "".join(f"<th class='n'>{escape(part)}</th>" for part in parts)
    rows = []
    for name, count in counts.items():
        width = 100 * count / largest
        cells = "".join(f"<td class='n'>{part.get(name, 0):,}</td>" for part in parts.values())
        rows.append(
            f"<tr><td>{escape(name)}</td><td class='bar'><i style='width:{width:.1f}%'></i></td>"
            f"<td class='n'>{count:,}</td>{cells}</tr>"
        )
    return (
        "<h2>Classes</h2><table><thead><tr><th>Class</th><th></th><th class='n'>images</th>"
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _unreadable_table(unreadable: tuple[tuple[str, str], ...]) -> str:
    if not unreadable:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(source)}</code></td><td>{escape(reason)}</td></tr>"
        for source, reason in unreadable
    )
    return (
        "<h2>Left out as unreadable</h2><table><thead><tr><th>Image</th><th>Reason</th></tr>"
        f"</thead><tbody>{rows}</tbody></table>"
    )


_CSS = """
:root{color-scheme:light;--ink:#1c2430;--soft:#667085;--line:#e6e9ef;--fill:#f7f8fa;--bar:#5b8def}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);
font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:920px;margin:0 auto;padding:24px}
header{display:flex;align-items:center;gap:12px}
h1{font-size:22px;margin:0}h2{font-size:15px;margin:28px 0 8px}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin-top:18px}
.tiles div{flex:1 1 120px;background:var(--fill);border:1px solid var(--line);border-radius:8px;
padding:10px 14px}
.tiles b{display:block;font-size:20px;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:12px}
table{width:100%;border-collapse:collapse}
th{color:var(--soft);font-size:12px;font-weight:500;text-align:left}
th,td{padding:7px 10px;border-bottom:1px solid var(--line);vertical-align:top}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td p{margin:2px 0 0;color:var(--soft);font-size:13px}
code{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--fill);
display:inline-block;max-width:100%;overflow-wrap:anywhere;
border:1px solid var(--line);border-radius:4px;padding:0 4px}
.pictures{display:flex;flex-wrap:wrap;gap:8px;margin-top:6px}
figure{margin:0;width:72px}
figure img{width:64px;height:64px;object-fit:contain;background:var(--fill);
border:1px solid var(--line);border-radius:4px;image-rendering:pixelated}
figcaption{color:var(--soft);font-size:10px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.badge{display:inline-block;border-radius:99px;padding:1px 9px;font-size:12px;font-weight:600}
.passed{background:#e3f5ea;color:#17703c}.warning{background:#fdf1d8;color:#8a5a00}
.failed{background:#fde4e1;color:#a8200d}
.bar{width:38%}.bar i{display:block;height:10px;margin-top:5px;border-radius:3px;
background:var(--bar);min-width:1px}
"""
