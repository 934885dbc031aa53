"""Alerts and metrics of pipeline runs: a failure begins an incident, the next success ends it.

ZenML calls the hooks in the process of a step, wherever that runs. What fails outside of steps, and
what succeeds, is reported by the process that waits for the run; where none does, by a hook too.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse
from zenml.steps import get_step_context

from cv_factory.errors import describe_system_error
from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.metrics_file import metrics_folder
from cv_factory.monitoring.redaction import redact
from cv_factory.monitoring.run_metrics import RunOutcome, StepOutcome, write_run_metrics
from registry.alerts import send_alerts, send_event

logger = logging.getLogger(__name__)

#: Key in ``extra`` of a pipeline under which the hooks find the rest.
EXTRA = "cv_factory_alerts"
_MAX_MESSAGE = 1_000
_SUCCESSFUL = (ExecutionStatus.COMPLETED, ExecutionStatus.CACHED)


@dataclass(frozen=True)
class RunAlerts:
    """What is announced of the runs of a pipeline.

    Attributes:
        pipeline: Its name.
        model: Name of the registered model; empty if it has none.
        on_success: Whether each success is announced, and not only the first after a failure.
    """

    pipeline: str
    model: str = ""
    on_success: bool = False

    def report_failure(self, error: BaseException, place: str) -> None:
        """Begin the incident of this pipeline; secrets in the error are masked."""
        reason = describe_system_error(error) or f"{type(error).__name__}: {error}"
        self._announce("firing", f"Pipeline {self._title} failed", f"{place}: {reason}")

    def report_success(self, run_name: str) -> None:
        """End the incident, if there is one."""
        self._announce("resolved", f"Pipeline {self._title} succeeded", f"Run {run_name}.")

    def options(self, *, is_synchronous: bool) -> dict[str, Any]:
        """Return the hooks as arguments of ``Pipeline.with_options``.

        Args:
            is_synchronous: Whether the run's starter waits for its end, and reports that.
        """
        hooks: dict[str, Callable[..., None]] = {"on_failure": alert_on_failure}
        if not is_synchronous:
            hooks["on_success"] = alert_on_success
        return {**hooks, "extra": {EXTRA: vars(self)}}

    @property
    def _title(self) -> str:
        return f"{self.pipeline} of {self.model}" if self.model else self.pipeline

    def _announce(self, status: Any, summary: str, detail: str) -> None:
        # A secret that was cut would not be known as one.
        text = redact(detail)[:_MAX_MESSAGE]
        alert = Alert(
            incident="/".join(filter(None, ("pipeline", self.pipeline, self.model))),
            status=status,
            severity="warning",
            summary=summary,
            detail=f"{text}\nThe dashboard shows the run: zenml login --local",
            labels={"pipeline": self.pipeline},
        )
        if status == "resolved" and self.on_success:
            send_event(alert, self.model)
        else:
            send_alerts([alert], self.model)


def alert_on_failure(exception: BaseException) -> None:
    """Announce the failure of a step; a step that was stopped did not fail."""
    if isinstance(exception, Exception):
        context = get_step_context()
        place = f"Step {context.step_run.name} of run {context.pipeline_run.name}"
        _run_alerts(context.pipeline_run).report_failure(exception, place)


def alert_on_success() -> None:
    """Announce the success of a run after its last step."""
    context = get_step_context()
    run = Client().get_pipeline_run(context.pipeline_run.id)
    others = [step for step in run.steps.values() if step.id != context.step_run.id]
    planned = run.snapshot.step_configurations if run.snapshot else {}
    if len(others) + 1 == len(planned) and all(step.status in _SUCCESSFUL for step in others):
        _run_alerts(run).report_success(run.name)


def report_end(alerts: RunAlerts, run: PipelineRunResponse) -> None:
    """Announce how a run ended, and write its metrics."""
    if run.status in _SUCCESSFUL:
        alerts.report_success(run.name)
    else:
        alerts.report_failure(RuntimeError(f"its status is {run.status}"), f"Run {run.name}")
    _write_metrics(alerts, lambda: run)


def report_error(alerts: RunAlerts, error: Exception, since: datetime) -> None:
    """Announce what ended a run that began since, if it began, and write its metrics."""
    alerts.report_failure(error, "The run")
    _write_metrics(alerts, lambda: _find_last_run(alerts.pipeline, since))


def _write_metrics(alerts: RunAlerts, find_run: Callable[[], PipelineRunResponse | None]) -> None:
    """Write the metrics where the environment names a folder; a failure is logged."""
    folder = metrics_folder()
    if folder is None:
        return
    try:
        if (run := find_run()) is not None:
            write_run_metrics(folder, _describe_outcome(alerts, run))
    except (RuntimeError, OSError) as error:
        logger.error("The metrics of the run are not written to %s: %s", folder, error)


def _find_last_run(pipeline: str, since: datetime) -> PipelineRunResponse | None:
    """Return the newest run of a pipeline that was created since; None where it has none."""
    runs = Client().list_pipeline_runs(
        pipeline=pipeline, sort_by="desc:created", size=1, hydrate=True
    ).items  # fmt: skip
    return runs[0] if runs and _utc(runs[0].created) >= since else None


def _describe_outcome(alerts: RunAlerts, run: PipelineRunResponse) -> RunOutcome:
    steps = [
        StepOutcome(
            name,
            (step.end_time - step.start_time).total_seconds()
            if step.end_time and step.start_time
            else None,
            step.status in _SUCCESSFUL,
        )
        for name, step in run.steps.items()
    ]
    start, end = _utc(run.start_time or run.created), _utc(run.end_time or run.updated)
    return RunOutcome(alerts.pipeline, alerts.model, start, end, run.status in _SUCCESSFUL, steps)


def _run_alerts(run: PipelineRunResponse) -> RunAlerts:
    return RunAlerts(**run.config.extra[EXTRA])


def _utc(time: datetime) -> datetime:
    """Return a time of ZenML, which is UTC without saying so."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)
