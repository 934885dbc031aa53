"""Metrics of the last run of a pipeline: status and duration of the run and of its steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from cv_factory.monitoring.metrics_file import read_metric, write_metrics

_LAST_SUCCESS = "cv_factory_pipeline_last_success_timestamp_seconds"


@dataclass(frozen=True)
class StepOutcome:
    """What became of one step.

    Attributes:
        name: Of the step.
        duration_s: In seconds; None where it did not end.
        is_successful: Also where it was cached.
    """

    name: str
    duration_s: float | None
    is_successful: bool


@dataclass(frozen=True)
class RunOutcome:
    """What became of a run.

    Attributes:
        pipeline: Its name.
        model: Name of the registered model; empty if it has none.
        start: When it began.
        end: When it ended.
        is_successful: Whether all steps ended well.
        steps: Those that began.
    """

    pipeline: str
    model: str
    start: datetime
    end: datetime
    is_successful: bool
    steps: Sequence[StepOutcome] = ()


def write_run_metrics(folder: Path, outcome: RunOutcome) -> None:
    """Write the metrics of a run over those of the pipeline's last one.

    Raises:
        OSError: The folder cannot be written.
    """
    names, labels = ("pipeline", "model"), (outcome.pipeline, outcome.model)
    file = "_".join(filter(None, ("cv_factory_pipeline", *labels)))
    registry = CollectorRegistry()

    def set_gauge(name: str, text: str, value: float) -> None:
        Gauge(name, text, names, registry=registry).labels(*labels).set(value)

    end = outcome.end.timestamp()
    set_gauge("cv_factory_pipeline_last_run_timestamp_seconds", "End of the last run", end)
    set_gauge("cv_factory_pipeline_last_run_success", "1 if it succeeded", outcome.is_successful)
    duration = end - outcome.start.timestamp()
    set_gauge("cv_factory_pipeline_last_run_duration_seconds", "Its duration", duration)
    success = (
        end
        if outcome.is_successful
        else read_metric(folder, file, _LAST_SUCCESS, dict(zip(names, labels, strict=True)))
    )
    if success is not None:
        set_gauge(_LAST_SUCCESS, "End of the last run that succeeded", success)
    _add_steps(registry, outcome)
    write_metrics(folder, file, registry)


def _add_steps(registry: CollectorRegistry, outcome: RunOutcome) -> None:
    names = ("pipeline", "model", "step")
    success = Gauge(
        "cv_factory_step_last_run_success", "1 if the step succeeded or was cached", names,
        registry=registry,
    )  # fmt: skip
    duration = Gauge(
        "cv_factory_step_last_run_duration_seconds", "Duration of the step", names,
        registry=registry,
    )  # fmt: skip
    for step in outcome.steps:
        labels = (outcome.pipeline, outcome.model, step.name)
        success.labels(*labels).set(step.is_successful)
        if step.duration_s is not None:
            duration.labels(*labels).set(step.duration_s)
