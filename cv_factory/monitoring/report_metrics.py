"""Prometheus metrics of a report, for the textfile collector; docs/monitoring/report.md lists them.

All have the labels ``model`` and ``version``; the others are names of detectors, estimators, kinds
and statuses, which are few.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge

from cv_factory.monitoring.finding import Status
from cv_factory.monitoring.report import Action, MonitoringReport

_PREFIX = "cv_factory_monitor"


def build_metrics(report: MonitoringReport) -> CollectorRegistry:
    """Return the metrics of a model's newest report."""
    metrics = _Metrics(report)
    metrics.set(
        "last_run_timestamp_seconds",
        "Time of the last monitoring run.",
        datetime.fromisoformat(report.created).timestamp(),
    )
    metrics.set("predictions", "Predictions in the window.", report.n_predictions)
    metrics.set("labels", "Predictions in the window whose label counts.", report.n_labels)
    if report.n_distinct:
        coverage = report.n_labels / report.n_distinct
        metrics.set("label_coverage_ratio", "Share of distinct predictions with a label.", coverage)
    if report.n_refused is not None:
        metrics.set("refused", "Images in the window that were refused.", report.n_refused)
    for action in get_args(Action):
        is_recommended = action == report.recommendation.action
        text = "1 for the action that the last report recommends."
        metrics.set("recommendation", text, float(is_recommended), action=action)
    _add_findings(metrics, report)
    _add_estimates(metrics, report)
    measured = report.labeled_accuracy
    if measured is not None and measured.accuracy is not None:
        text = "Accuracy by the labels that were asked for, as a share of 1."
        metrics.set("labeled_accuracy_ratio", text, measured.accuracy)
    return metrics.registry


def _add_findings(metrics: "_Metrics", report: MonitoringReport) -> None:
    for detector in {finding.detector: None for finding in report.findings}:
        findings = [finding for finding in report.findings if finding.detector == detector]
        for status in get_args(Status):
            n = sum(finding.status == status for finding in findings)
            text = "Findings of a detector with a status."
            metrics.set("findings", text, n, detector=detector, status=status)
        measured = [f for f in findings if f.evidence is not None]
        if measured:
            most = max(measured, key=lambda f: f.evidence or 0.0)
            text = "Evidence of a detector's finding with the most."
            metrics.set("evidence", text, most.evidence or 0.0, detector=detector)
            if most.threshold is not None:
                text = "Evidence at which that finding is an alarm."
                metrics.set("evidence_threshold", text, most.threshold, detector=detector)


def _add_estimates(metrics: "_Metrics", report: MonitoringReport) -> None:
    for e in report.estimates:
        text = "Accuracy as estimated without labels, as a share of 1."
        metrics.set("estimated_accuracy_ratio", text, e.accuracy, estimator=e.estimator)
        if e.expected_error is not None:
            text = "How far that estimate may be off, in shares of 1."
            metrics.set("estimate_error_ratio", text, e.expected_error, estimator=e.estimator)


class _Metrics:
    """Gauges by name in a registry of their own."""

    def __init__(self, report: MonitoringReport) -> None:
        self.registry = CollectorRegistry()
        self._labels: Mapping[str, str] = {
            "model": report.model_name,
            "version": str(report.version),
        }
        self._gauges: dict[str, Gauge] = {}

    def set(self, name: str, text: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        if name not in self._gauges:
            names = [*self._labels, *labels]
            gauge = Gauge(f"{_PREFIX}_{name}", text, names, registry=self.registry)
            self._gauges[name] = gauge
        self._gauges[name].labels(**self._labels, **labels).set(value)
