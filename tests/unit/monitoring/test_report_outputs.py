"""What a report becomes: alerts, metrics, the page."""

from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from cv_factory.monitoring.finding import Finding
from cv_factory.monitoring.report_alerts import build_alerts
from cv_factory.monitoring.report_metrics import build_metrics
from cv_factory.monitoring.report_page import render_report
from tests.unit.monitoring.test_report import DRIFT, HARM, SILENT, UNSURE, make_report


def test_an_alarm_fires_and_silence_resolves_the_same_incident() -> None:
    (firing,) = build_alerts(make_report(DRIFT))
    (resolved,) = build_alerts(make_report(SILENT))
    assert firing.incident == resolved.incident == "drift/digits/martingale"
    assert (firing.status, firing.severity) == ("firing", "warning")
    assert resolved.status == "resolved"
    assert "python run.py monitoring --model digits" in firing.detail
    assert firing.labels["version"] == "3"


def test_harm_is_critical_and_missing_evidence_changes_no_incident() -> None:
    (alert,) = build_alerts(make_report(HARM, UNSURE))
    assert (alert.incident, alert.severity) == ("harm/digits/error_rise", "critical")
    assert build_alerts(make_report(UNSURE)) == []
    # One finding of the detector is silent, the other cannot tell.
    assert build_alerts(make_report(replace(UNSURE, status="silent"), UNSURE)) == []


def test_metrics_tell_findings_evidence_and_estimates() -> None:
    registry = build_metrics(make_report(DRIFT, UNSURE))
    labels = {"model": "digits", "version": "3"}

    def value(name: str, **more: str) -> float | None:
        return registry.get_sample_value(f"cv_factory_monitor_{name}", labels | more)

    assert value("last_run_timestamp_seconds") == pytest.approx(1795932000)
    assert value("predictions") == 600
    assert value("label_coverage_ratio") == pytest.approx(0.3)
    assert value("findings", detector="martingale", status="alarm") == 1
    assert value("findings", detector="martingale", status="silent") == 0
    assert value("evidence_threshold", detector="martingale") == 100
    assert value("evidence", detector="error_rise") is None
    assert value("estimated_accuracy_ratio", estimator="cbpe") == 0.91
    assert value("estimate_error_ratio", estimator="cbpe") == 0.012
    assert value("recommendation", action="alert") == 1
    assert value("recommendation", action="none") == 0
    assert b"cv_factory_monitor_refused" not in generate_latest(registry)


def test_the_page_shows_the_verdict_and_escapes_what_it_is_given() -> None:
    bad = Finding("bbsd", "drift", "alarm", "class <script>alert(1)</script>", 9)
    page = render_report(make_report(bad, UNSURE))
    assert "<script>" not in page
    assert "not enough evidence" in page
    assert "3 labels matched no prediction." in page
    assert page.count("data:image/png;base64") >= 4
    assert "http://" not in page
    assert "https://" not in page


def test_the_page_of_an_empty_window_says_that_nothing_is_known() -> None:
    report = replace(
        make_report(UNSURE), n_predictions=0, n_distinct=0, start=None, end=None, timeline=(),
        coverage=(), estimates=(), baseline=None,
    )  # fmt: skip
    assert "no detector has enough evidence" in render_report(report)
