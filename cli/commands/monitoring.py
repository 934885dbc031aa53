"""``run.py monitoring``: the last report of each model's monitoring."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import JSON_OPTION, LISTED_MODEL_OPTION, STACK_OPTION
from cli.session import list_models, write_file

if TYPE_CHECKING:
    from cv_factory.monitoring.report import AccuracyEstimate, MonitoringReport

_COLORS = {"alarm": "red", "silent": "green", "not enough evidence": "yellow"}


@click.command("monitoring")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the report's page to this file; for one model.",
)
@LISTED_MODEL_OPTION
@STACK_OPTION
@JSON_OPTION
def command(html: Path | None, model_name: str | None, stack: str | None, as_json: bool) -> int:
    """Show the last report of monitoring.

    A new one is made by: run.py --pipeline monitoring
    """
    names = list_models(model_name, stack)
    if html is not None and len(names) > 1:
        raise click.UsageError(f"--html is for one model: add --model, one of {', '.join(names)}.")
    from registry.monitoring_reports import load_latest_report

    reports = {name: load_latest_report(name, live_only=False) for name in names}
    if html is not None:
        _write_page(html, reports[names[0]] if names else None)
    elif as_json:
        content = {name: report and report.to_dict() for name, report in reports.items()}
        click.echo(json.dumps(content, indent=2))
    else:
        texts = [
            describe_monitoring(report)
            if report
            else f"{name} was not monitored yet. Run: python run.py --pipeline monitoring "
            f"--model {name}"
            for name, report in reports.items()
        ]
        click.echo("\n\n".join(texts))
    return 0


def describe_monitoring(report: "MonitoringReport") -> str:
    """Return verdict, window, findings, estimates and recommendation as lines."""
    title = f"{report.model_name} version {report.version}"
    status = report.status.replace("_", " ")
    lines = [f"{click.style(title, bold=True)}  {_word(status)}"]
    window = f"{report.n_predictions:,} predictions, {report.n_labels:,} labels"
    if report.n_refused:
        window += f", {report.n_refused:,} refused images"
    if report.start:
        window += f", {_minute(report.start)} to {_minute(report.end)} UTC"
    lines.append(f"  {'window':<13}{window} ({report.source})")
    for finding in report.findings:
        lines.append(f"  {finding.kind:<13}{_word(finding.verdict)}, {finding.detector}: ")
        lines[-1] += finding.summary
    lines += [f"  {'estimate':<13}{_describe_estimate(e)}" for e in report.estimates]
    measured = report.labeled_accuracy
    if measured and measured.accuracy is not None:
        lines.append(
            f"  {'accuracy':<13}{measured.accuracy:.2%} by {measured.n_labeled:,} labels, "
            f"{measured.confidence:.0%} interval {measured.low:.2%} to {measured.high:.2%}"
        )
    lines += [f"  {'remark':<13}{remark}" for remark in report.remarks]
    lines.append(f"  {'recommended':<13}{report.recommendation.action}")
    lines.append(f"  {'made':<13}{_minute(report.created)} UTC")
    return "\n".join(lines)


def _describe_estimate(estimate: "AccuracyEstimate") -> str:
    error = estimate.expected_error
    band = "error not measured" if error is None else f"off by up to {100 * error:.1f} points"
    return f"accuracy {estimate.accuracy:.2%} by {estimate.estimator} without labels, {band}"


def _word(verdict: str) -> str:
    return click.style(verdict, fg=_COLORS.get(verdict))


def _minute(time: str | None) -> str:
    return "" if time is None else time[:16].replace("T", " ")


def _write_page(path: Path, report: "MonitoringReport | None") -> None:
    if report is None:
        raise click.UsageError("There is no report yet. Run: python run.py --pipeline monitoring")
    from cv_factory.monitoring.report_page import render_report

    write_file(path, render_report(report))
    click.echo(f"Report written to {path}.")
