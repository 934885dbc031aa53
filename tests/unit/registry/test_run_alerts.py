"""What is said of pipeline runs that fail and succeed, and the metrics of the last one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from zenml.enums import ExecutionStatus

from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.metrics_file import FOLDER_VARIABLE, read_metric
from registry import run_alerts
from registry.run_alerts import EXTRA, RunAlerts, alert_on_failure, alert_on_success, report_end

ALERTS = RunAlerts("training", "digits")
LABELS = {"pipeline": "training", "model": "digits"}
START = datetime(2026, 11, 29, 12)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Alert, bool]]:
    """What was sent, and whether it was sent as an event."""
    sent: list[tuple[Alert, bool]] = []
    monkeypatch.setattr(
        run_alerts, "send_alerts", lambda alerts, _: sent.extend((a, False) for a in alerts)
    )
    monkeypatch.setattr(run_alerts, "send_event", lambda alert, _: sent.append((alert, True)))
    return sent


def _run(status: ExecutionStatus, *steps: Any, planned: int = 2) -> Any:
    return SimpleNamespace(
        id=1,
        name="training-1",
        status=status,
        steps={step.name: step for step in steps},
        snapshot=SimpleNamespace(step_configurations=dict.fromkeys(range(planned))),
        config=SimpleNamespace(extra={EXTRA: vars(ALERTS)}),
        start_time=START,
        end_time=START + timedelta(seconds=90),
    )


def _step(name: str, status: ExecutionStatus = ExecutionStatus.COMPLETED) -> Any:
    end = START + timedelta(seconds=3) if status.is_finished else None
    return SimpleNamespace(id=name, name=name, status=status, start_time=START, end_time=end)


def _enter_step(monkeypatch: pytest.MonkeyPatch, run: Any, step: Any) -> None:
    context = SimpleNamespace(pipeline_run=run, step_run=step)
    monkeypatch.setattr(run_alerts, "get_step_context", lambda: context)
    client = SimpleNamespace(get_pipeline_run=lambda _: run)
    monkeypatch.setattr(run_alerts, "Client", lambda: client)


def test_a_failing_step_begins_an_incident_that_names_it(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[Alert, bool]]
) -> None:
    step = _step("train")
    _enter_step(monkeypatch, _run(ExecutionStatus.RUNNING, step), step)
    alert_on_failure(KeyboardInterrupt())
    assert not sent
    alert_on_failure(ValueError("no images"))
    ((alert, is_event),) = sent
    assert (alert.incident, alert.status, is_event) == ("pipeline/training/digits", "firing", False)
    assert alert.summary == "Pipeline training of digits failed"
    assert alert.detail.startswith("Step train of run training-1: ValueError: no images\n")


def test_a_run_that_nothing_waits_for_succeeds_with_its_last_step(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[Alert, bool]]
) -> None:
    first, last = _step("train"), _step("register", ExecutionStatus.RUNNING)
    _enter_step(monkeypatch, _run(ExecutionStatus.RUNNING, first), first)
    alert_on_success()
    assert not sent
    _enter_step(monkeypatch, _run(ExecutionStatus.RUNNING, first, last), last)
    alert_on_success()
    assert [alert.status for alert, _ in sent] == ["resolved"]


def test_only_what_nothing_waits_for_needs_the_hook_of_success() -> None:
    assert ALERTS.options(is_synchronous=True) == {
        "on_failure": alert_on_failure,
        "extra": {EXTRA: {"pipeline": "training", "model": "digits", "on_success": False}},
    }
    assert ALERTS.options(is_synchronous=False)["on_success"] is alert_on_success


def test_each_success_is_announced_where_that_is_wanted(sent: list[tuple[Alert, bool]]) -> None:
    RunAlerts("validation", on_success=True).report_success("validation-1")
    ((alert, is_event),) = sent
    assert is_event
    assert (alert.incident, alert.summary) == (
        "pipeline/validation",
        "Pipeline validation succeeded",
    )


def test_metrics_of_a_failed_run_keep_the_last_success(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[Alert, bool]], tmp_path: Path
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))

    def read(name: str, **labels: str) -> float | None:
        file = "cv_factory_pipeline_training_digits"
        return read_metric(tmp_path, file, f"cv_factory_{name}", {**LABELS, **labels})

    report_end(ALERTS, _run(ExecutionStatus.COMPLETED, _step("train"), _step("register")))
    end = (START + timedelta(seconds=90)).replace(tzinfo=UTC).timestamp()
    assert read("pipeline_last_success_timestamp_seconds") == end
    assert read("pipeline_last_run_success") == 1
    assert read("pipeline_last_run_duration_seconds") == 90
    assert read("step_last_run_duration_seconds", step="register") == 3

    failed = _run(ExecutionStatus.FAILED, _step("train", ExecutionStatus.FAILED))
    failed.end_time = START + timedelta(hours=1)
    report_end(ALERTS, failed)
    assert read("pipeline_last_run_success") == 0
    assert read("pipeline_last_success_timestamp_seconds") == end
    assert read("pipeline_last_run_timestamp_seconds") == end + 3600 - 90
    assert read("step_last_run_success", step="train") == 0
    assert read("step_last_run_success", step="register") is None
    assert [alert.status for alert, _ in sent] == ["resolved", "firing"]


def test_a_folder_that_cannot_be_written_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
    sent: list[tuple[Alert, bool]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file"))
    report_end(ALERTS, _run(ExecutionStatus.COMPLETED))
    assert "metrics of the run are not written" in caplog.text
