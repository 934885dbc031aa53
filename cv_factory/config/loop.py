"""The configuration of the loop: when ``run.py tick`` monitors, retrains and starts a rollout."""

from typing import ClassVar

from pydantic import Field

from cv_factory.config.section import RegisteredName, Section

#: Test images from the field that a gate needs.
MIN_TEST_IMAGES = 20


class LoopModelConfig(Section):
    """Model that the loop watches."""

    name: RegisteredName | None = Field(
        None, description="registered name; the only registered model where not given"
    )


class LoopMonitoringConfig(Section):
    """When the monitoring pipeline runs."""

    every_hours: float = Field(24.0, gt=0.0, description="least time between two runs")
    max_report_hours: float = Field(
        72.0, gt=0.0, description="age at which a report decides nothing any more"
    )
    config: str = Field("configs/monitoring.yaml", min_length=1, description="of the pipeline")


class RollbackConfig(Section):
    """Whether a report's recommendation to roll back is carried out."""

    enabled: bool = Field(True, description="false: the alarm retrains, where it may")
    max_days: float = Field(
        30.0,
        gt=0.0,
        description="time since its promotion in which a version is rolled back: one that served "
        "well for longer is not to blame, and is trained again",
    )


class RetrainConfig(Section):
    """When a challenger is trained. All conditions must hold.

    The cause is a report that recommends it (``report.act_on`` of the monitoring pipeline), or age.
    """

    enabled: bool = Field(True, description="false: ticks say what they would do, and only alert")
    config: str = Field("configs/training.yaml", min_length=1, description="of the pipeline")
    min_labels_on_alarm: int = Field(
        50,
        ge=1,
        description="new labels that may train, with an alarm: without any, training again would "
        "give the same predictor",
    )
    min_test_images: int = Field(
        MIN_TEST_IMAGES,
        ge=1,
        description="images from the field for the test of a challenger, whose labels were asked "
        "for by chance: without them no gate can judge it",
    )
    blind_only: bool = Field(
        False,
        description="whether only labels by people who did not see the prediction may train; those "
        "that a model gave never do",
    )
    after_days: float | None = Field(
        90.0, gt=0.0, description="age of the version in production that retrains without an alarm"
    )
    min_new_labels: int = Field(
        500, ge=1, description="new labels that may train, where the age retrains"
    )
    cooldown_hours: float = Field(
        168.0, ge=0.0, description="least time between the starts of two trainings"
    )
    budget_trainings: int = Field(4, ge=0, description="trainings in any budget_days days")
    budget_days: float = Field(30.0, gt=0.0)
    max_failed_challengers: int = Field(
        2, ge=1, description="challengers in a row that fail, after which the loop stops retraining"
    )
    max_hours: float = Field(
        24.0, gt=0.0, description="a training elsewhere that did not end counts as running so long"
    )


class LoopRolloutConfig(Section):
    """Whether a challenger that passed its gates is rolled out."""

    enabled: bool = Field(True, description="false: it waits in staging for a person")
    config: str = Field("configs/deployment.yaml", min_length=1, description="of the pipeline")


class LoopConfig(Section):
    """The configuration of the loop."""

    MODEL_NAME_KEY: ClassVar[str | None] = "model.name"

    model: LoopModelConfig = LoopModelConfig()
    monitoring: LoopMonitoringConfig = LoopMonitoringConfig()
    rollback: RollbackConfig = RollbackConfig()
    retrain: RetrainConfig = RetrainConfig()
    rollout: LoopRolloutConfig = LoopRolloutConfig()
