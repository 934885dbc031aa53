"""Page of a monitoring report."""

from cv_factory.inference.reference import STATISTICS
from cv_factory.monitoring import plots
from cv_factory.monitoring.finding import Finding
from cv_factory.monitoring.report import AccuracyEstimate, MonitoringReport
from cv_factory.reporting.html_page import render_html
from cv_factory.reporting.page import (
    Badge,
    Block,
    Entry,
    Header,
    Picture,
    Sections,
    Table,
    Text,
    Tile,
)

_ACTIONS = {
    "none": "Nothing to do.",
    "alert": "People should look at this: labels do not show well enough that answers are worse.",
    "rollback": "Roll back: answers are worse, and the input looks as it did at training.",
    "retrain": "Retrain: answers are worse, and another version would see the same input.",
}


def render_report(report: MonitoringReport) -> str:
    """Return a report as one HTML page: pictures inside, no scripts, no external links."""
    window = f"{report.n_predictions:,} predictions"
    if report.start and report.end:
        window += f" from {_minute(report.start)} to {_minute(report.end)} UTC"
    header = Header(
        f"Monitoring of {report.model_name}",
        addition=f"version {report.version}",
        badge=Badge(report.status.replace("_", " ")),
        text=f"{window}, read from the {report.source}; made {_minute(report.created)} UTC",
    )
    sections: Sections = [
        ("Recommendation", _recommendation_blocks(report)),
        ("Findings", _finding_blocks(report)),
        ("What this window could not have shown", _blind_spot_blocks(report)),
        ("Accuracy", _accuracy_blocks(report)),
        ("Predictions", _prediction_blocks(report)),
        ("Images", _image_blocks(report)),
        ("Labels", _label_blocks(report)),
        ("Remarks", [Text(remark) for remark in report.remarks]),
    ]
    shown = [(title, blocks) for title, blocks in sections if blocks]
    return render_html(f"Monitoring of {report.model_name}", header, _tiles(report), shown)


def _tiles(report: MonitoringReport) -> list[Tile]:
    tiles = [
        Tile("Recommended", report.recommendation.action),
        Tile("Predictions", f"{report.n_predictions:,}", _describe_counts(report)),
        Tile("Labels", f"{report.n_labels:,}", _coverage(report)),
    ]
    if report.estimates:
        first = report.estimates[0]
        tiles.append(Tile("Estimated accuracy", f"{first.accuracy:.1%}", _band(first)))
    measured = report.labeled_accuracy
    if measured and measured.accuracy is not None and measured.low is not None:
        note = f"{measured.low:.1%} to {measured.high:.1%}, {measured.n_labeled:,} labels"
        tiles.append(Tile("Accuracy by labels", f"{measured.accuracy:.1%}", note))
    if report.baseline is not None:
        note = f"{report.baseline.n_images:,} images"
        tiles.append(Tile("Held-out accuracy", f"{report.baseline.accuracy:.1%}", note))
    return tiles


def _describe_counts(report: MonitoringReport) -> str:
    refused = "" if report.n_refused is None else f", {report.n_refused:,} images refused"
    return f"{report.n_distinct:,} distinct{refused}"


def _coverage(report: MonitoringReport) -> str:
    share = report.n_labels / report.n_distinct if report.n_distinct else 0.0
    return f"{share:.1%} of distinct predictions"


def _band(estimate: AccuracyEstimate) -> str:
    if estimate.expected_error is None:
        return "error not measured"
    return f"without labels, off by up to {100 * estimate.expected_error:.1f} points"


def _recommendation_blocks(report: MonitoringReport) -> list[Block]:
    recommendation = report.recommendation
    text = _ACTIONS[recommendation.action]
    if report.status == "not_enough_evidence":
        text = "Nothing can be said yet: no detector has enough evidence."
    return [Text(text), *(Text(reason) for reason in recommendation.reasons)]


def _finding_blocks(report: MonitoringReport) -> list[Block]:
    order = ("alarm", "not enough evidence", "silent", "explains")
    findings = sorted(report.findings, key=lambda finding: order.index(finding.verdict))
    rows = tuple(
        (
            Entry(finding.detector.replace("_", " "), finding.summary),
            Badge(finding.verdict),
            _figure(finding.evidence),
            _figure(finding.threshold),
            finding.n,
        )
        for finding in findings
    )
    columns = ("detector", "status", "evidence", "alarm at", "n")
    blocks: list[Block] = [Table(columns, rows)]
    judged = [finding for finding in findings if _ratio(finding) is not None]
    if judged:
        names = [finding.detector.replace("_", " ") for finding in judged]
        ratios = [_ratio(finding) or 0.0 for finding in judged]
        alarms = [finding.status == "alarm" for finding in judged]
        blocks.append(
            Picture("Evidence by threshold", lambda: plots.evidence_bars(names, ratios, alarms))
        )
    return blocks


def _ratio(finding: Finding) -> float | None:
    """Return a finding's evidence by its threshold; None where it has none."""
    if finding.evidence is None or not finding.threshold:
        return None
    return finding.evidence / finding.threshold


def _blind_spot_blocks(report: MonitoringReport) -> list[Block]:
    rows = tuple(
        (Entry(finding.detector.replace("_", " "), finding.smallest_detectable),)
        for finding in report.findings
        if finding.smallest_detectable
    )
    return [Table(("smallest shift that each detector could have shown",), rows)] if rows else []


def _accuracy_blocks(report: MonitoringReport) -> list[Block]:
    if not report.timeline:
        return []
    blocks: list[Block] = []
    if report.estimates:
        rows = tuple(
            (e.estimator.replace("_", " "), f"{e.accuracy:.2%}", _band(e)) for e in report.estimates
        )
        blocks.append(Table(("estimator", "accuracy", "measured error"), rows))
    times, timeline, baseline = _times(report), report.timeline, report.baseline
    expected = baseline.accuracy if baseline else None
    error = report.estimates[0].expected_error if report.estimates else None

    def draw() -> bytes:
        return plots.accuracy_over_time(
            times,
            [bucket.estimated_accuracy for bucket in timeline],
            error,
            [bucket.accuracy for bucket in timeline],
            [bucket.n_labels for bucket in timeline],
            expected,
        )

    return [*blocks, Picture("Accuracy over time", draw)]


def _prediction_blocks(report: MonitoringReport) -> list[Block]:
    timeline, times, baseline = report.timeline, _times(report), report.baseline
    if not timeline:
        return []
    n = sum(bucket.n_predictions for bucket in timeline)
    observed = [
        sum(bucket.class_shares[k] * bucket.n_predictions for bucket in timeline) / n
        for k in range(len(report.class_names))
    ]
    confidence = [bucket.confidence for bucket in timeline]
    shares = [bucket.class_shares for bucket in timeline]
    expected_confidence = baseline.confidence if baseline else None
    expected_shares = baseline.class_shares if baseline else None
    names = report.class_names
    return [
        Picture(
            "Confidence over time",
            lambda: plots.confidence_over_time(times, confidence, expected_confidence),
        ),
        Picture("Class shares", lambda: plots.class_shares(names, observed, expected_shares)),
        Picture("Classes over time", lambda: plots.shares_over_time(times, names, shares)),
    ]


def _image_blocks(report: MonitoringReport) -> list[Block]:
    rows = [[bucket.statistics[k] for bucket in report.timeline] for k in range(len(STATISTICS))]
    measured = [k for k, row in enumerate(rows) if any(value is not None for value in row)]
    if not measured:
        return []
    expected = report.baseline.statistics if report.baseline else (None,) * len(STATISTICS)
    times = _times(report)

    def draw() -> bytes:
        return plots.statistics_over_time(
            times,
            [STATISTICS[k] for k in measured],
            [rows[k] for k in measured],
            [expected[k] for k in measured],
        )

    return [Picture("Statistics of the images over time", draw)]


def _label_blocks(report: MonitoringReport) -> list[Block]:
    coverage = report.coverage
    if not any(row.n_labels for row in coverage):
        return [Text("No prediction of this window has a label.")]
    rows = tuple(
        (row.day, row.version, row.n_predictions, row.n_labels, f"{row.share:.1%}")
        for row in coverage
    )
    days = [row.day for row in coverage]
    shares = [row.share for row in coverage]
    return [
        Table(("day", "version", "predictions", "labels", "share"), rows),
        Picture("Labels by day", lambda: plots.coverage_bars(days, shares)),
    ]


def _times(report: MonitoringReport) -> list[str]:
    """Return a short text for each span of the timeline, with no more than tells them apart."""
    starts = [bucket.start for bucket in report.timeline]
    if any(start is None for start in starts):
        return [str(k + 1) for k in range(len(starts))]
    texts = [str(start) for start in starts]
    if len({text[:10] for text in texts}) > 1:
        return [text[5:16].replace("T", " ") for text in texts]
    return [text[11:19] if len({t[:16] for t in texts}) < 2 else text[11:16] for text in texts]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.3g}"


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
