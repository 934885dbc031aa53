"""The configuration of the monitoring pipeline: window, detectors, labels and report."""

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from cv_factory.config.detectors import DetectorsConfig
from cv_factory.config.secrets import Location
from cv_factory.config.section import Problem, RegisteredName, Section, refuse


def _in_utc(time: datetime) -> datetime:
    """Return a time in UTC; one without a time zone is UTC already."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


#: ISO 8601; UTC where no time zone is given.
Time = Annotated[datetime, Field(strict=False), AfterValidator(_in_utc)]


class MonitoredModelConfig(Section):
    """Version whose predictions are compared with its reference."""

    name: RegisteredName | None = Field(
        None, description="registered name; the only registered model where not given"
    )
    version: int | None = Field(None, ge=1, description="the version in production where not given")


class WindowConfig(Section):
    """Predictions to look at; where nothing is given, all that the version has logged."""

    hours: float | None = Field(None, gt=0.0, description="the last hours before the run")
    start: Time | None = Field(None, description="first time (ISO 8601; UTC without a time zone)")
    end: Time | None = Field(None, description="time before which the window ends")
    batch: Location | None = Field(
        None, min_length=1, description="folder or URL of results of batch inference instead"
    )
    captured: Location | None = Field(
        None, min_length=1, description="folder or URL of SageMaker's captured data instead"
    )

    @property
    def is_live(self) -> bool:
        """Whether the window reaches until now, and is of what a service answered."""
        return self.batch is None and self.end is None

    @model_validator(mode="after")
    def _check_combinations(self) -> "WindowConfig":
        refuse(self._contradictions())
        return self

    def _contradictions(self) -> list[Problem]:
        problems = []
        if self.hours is not None and (self.start or self.end):
            problems.append(Problem(("hours",), "give either hours, or start and end"))
        if self.start and self.end and self.start >= self.end:
            problems.append(Problem(("end",), "must be later than start"))
        if self.batch and self.captured:
            problems.append(Problem(("captured",), "give either batch or captured"))
        if self.batch and (self.hours or self.start or self.end):
            problems.append(Problem(("batch",), "is looked at whole: remove hours, start and end"))
        return problems


class MonitoringLabelsConfig(Section):
    """Labels that count as evidence; those that a model gave never do."""

    blind_only: bool = Field(
        False, description="only labels by people who did not see the prediction"
    )


class ReportConfig(Section):
    """What a report holds beside the verdict, and where it goes."""

    evidently: Literal["always", "on_alarm", "never"] = Field(
        "always", description="when Evidently's pages (4 to 9 MB) are made"
    )
    max_rows: int = Field(
        1_000,
        ge=100,
        le=10_000,
        description="rows of the window and of the reference on Evidently's pages: an even sample",
    )
    act_on: list[Literal["quality", "drift", "performance", "harm"]] = Field(
        ["harm"],
        description="kinds of alarm for which a rollback or retraining is recommended; others "
        "alert. Only harm rests on labels",
    )
    act_at_evidence: float = Field(
        100.0,
        gt=1.0,
        description="evidence of harm from which on one is recommended; below, an alarm alerts",
    )
    alerts: bool = Field(True, description="send alerts through the stack's alerter, if any")
    metrics_folder: str | None = Field(
        None,
        min_length=1,
        description="folder of Prometheus' textfile collector for the monitor's own metrics",
    )


class MonitoringPipelineConfig(Section):
    """The configuration of the monitoring pipeline."""

    MODEL_NAME_KEY: ClassVar[str | None] = "model.name"

    model: MonitoredModelConfig = MonitoredModelConfig()
    window: WindowConfig = WindowConfig()
    detectors: DetectorsConfig = DetectorsConfig()
    labels: MonitoringLabelsConfig = MonitoringLabelsConfig()
    report: ReportConfig = ReportConfig()
