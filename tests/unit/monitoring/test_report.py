"""MonitoringReport: storage, status and recommendation."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from cv_factory.monitoring.finding import Finding
from cv_factory.monitoring.report import (
    AccuracyEstimate,
    Baseline,
    Coverage,
    MonitoringReport,
    Recommendation,
    TimeBucket,
    recommend,
)

SILENT = Finding("martingale", "drift", "silent", "evidence 1.2", 500, 1.2, 100.0, "small shifts")
DRIFT = replace(SILENT, status="alarm", evidence=math.inf, summary="evidence is infinite")
HARM = Finding("error_rise", "harm", "alarm", "error 3 % to 12 %", 150, 400.0, 100.0)
UNSURE = Finding("error_rise", "harm", "not_enough_evidence", "no labels", 0)


def make_report(*findings: Finding, **pages: str) -> MonitoringReport:
    """Return a report of two days."""
    return MonitoringReport(
        model_name="digits",
        version=3,
        created="2026-11-29T06:00:00+00:00",
        source="prediction log",
        is_live=True,
        start="2026-11-27T00:00:00+00:00",
        end="2026-11-28T23:59:00+00:00",
        n_predictions=600,
        n_distinct=500,
        n_labels=150,
        n_refused=None,
        class_names=("0", "1"),
        findings=findings,
        estimates=(AccuracyEstimate("cbpe", 0.91, 0.012, 500),),
        recommendation=recommend(findings, ("harm",), 100.0, has_predecessor=False),
        baseline=Baseline(300, 0.97, 0.95, (0.5, 0.5), (8.0, 8.0, 0.5, 0.2, 0.1)),
        coverage=(Coverage("2026-11-27", "3", 300, 150),),
        timeline=(
            TimeBucket(
                "2026-11-27T00:00:00+00:00", 600, 150, 0.9, (0.4, 0.6), 0.9, None, (8.0,) * 5
            ),
        ),
        remarks=("3 labels matched no prediction.",),
        evidently_pages=pages,
    )


@pytest.mark.parametrize("pages", [{}, {"evidently_drift": "<html>Evidently</html>"}])
def test_a_stored_report_is_read_as_it_was(tmp_path: Path, pages: dict[str, str]) -> None:
    report = make_report(SILENT, HARM, **pages)
    report.save(tmp_path)
    assert MonitoringReport.load(tmp_path) == report


def test_infinite_evidence_is_stored_as_a_number(tmp_path: Path) -> None:
    make_report(DRIFT).save(tmp_path)
    evidence = MonitoringReport.load(tmp_path).findings[0].evidence
    assert evidence is not None
    assert evidence >= 1e300
    verdict = json.loads(json.dumps(make_report(DRIFT).to_dict(), allow_nan=False))
    assert verdict["status"] == "alarm"
    assert verdict["findings"][0]["detector"] == "martingale"


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        ((SILENT, UNSURE), "silent"),
        ((SILENT, DRIFT), "alarm"),
        ((UNSURE,), "not_enough_evidence"),
        ((UNSURE, replace(SILENT, threshold=None)), "not_enough_evidence"),
        ((), "not_enough_evidence"),
    ],
)
def test_status_is_no_pass_without_evidence(findings: tuple[Finding, ...], status: str) -> None:
    assert make_report(*findings).status == status


def test_an_explanation_is_not_called_silence() -> None:
    assert SILENT.verdict == "silent"
    assert UNSURE.verdict == "not enough evidence"
    assert replace(SILENT, threshold=None).verdict == "explains"


@pytest.mark.parametrize(
    ("findings", "has_predecessor", "action"),
    [
        ((SILENT, UNSURE), True, "none"),
        ((DRIFT,), True, "alert"),
        ((replace(HARM, evidence=99.0),), True, "alert"),
        ((HARM,), True, "rollback"),
        ((HARM,), False, "retrain"),
        ((HARM, DRIFT), True, "retrain"),
    ],
)
def test_only_harm_recommends_to_act(
    findings: tuple[Finding, ...], has_predecessor: bool, action: str
) -> None:
    recommendation = recommend(findings, ("harm",), 100.0, has_predecessor=has_predecessor)
    assert recommendation.action == action
    assert len(recommendation.reasons) == sum(f.status == "alarm" for f in findings)


def test_the_configuration_may_let_drift_act() -> None:
    assert recommend([DRIFT], ("harm", "drift"), 100.0, has_predecessor=True) == Recommendation(
        "retrain", ("martingale: evidence is infinite",)
    )
