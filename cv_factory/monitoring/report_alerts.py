"""Alerts of a report: one incident for each detector of a model."""

from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.finding import Finding
from cv_factory.monitoring.report import MonitoringReport


def build_alerts(report: MonitoringReport) -> list[Alert]:
    """Return an alert for each detector: ``firing`` for an alarm, ``resolved`` where it is silent.

    A detector without enough evidence neither begins nor ends an incident.
    """
    by_detector: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_detector.setdefault(finding.detector, []).append(finding)
    alerts = []
    for findings in by_detector.values():
        alarms = [finding for finding in findings if finding.status == "alarm"]
        if alarms:
            alerts.append(_firing(report, alarms))
        elif all(finding.verdict == "silent" for finding in findings):
            alerts.append(_resolved(report, findings[0]))
    return alerts


def _firing(report: MonitoringReport, alarms: list[Finding]) -> Alert:
    alarm = alarms[0]
    lines = [finding.summary for finding in alarms]
    lines.append(f"Window: {report.start} to {report.end}, {report.n_predictions:,} predictions.")
    lines.append(f"Recommended: {report.recommendation.action}.")
    lines.append(f"Report: python run.py monitoring --model {report.model_name}")
    return Alert(
        incident=_incident(report, alarm),
        status="firing",
        severity="critical" if alarm.kind == "harm" else "warning",
        summary=f"{report.model_name} version {report.version}: {alarm.summary}",
        detail="\n".join(lines),
        labels=_labels(report, alarm),
    )


def _resolved(report: MonitoringReport, finding: Finding) -> Alert:
    return Alert(
        incident=_incident(report, finding),
        status="resolved",
        severity="info",
        summary=f"{report.model_name} version {report.version}: {finding.summary}",
        labels=_labels(report, finding),
    )


def _incident(report: MonitoringReport, finding: Finding) -> str:
    return f"{finding.kind}/{report.model_name}/{finding.detector}"


def _labels(report: MonitoringReport, finding: Finding) -> dict[str, str]:
    return {
        "model": report.model_name,
        "version": str(report.version),
        "detector": finding.detector,
        "kind": finding.kind,
    }
