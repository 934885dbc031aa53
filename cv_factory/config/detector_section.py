"""Base class of the detectors' sections; each detector's own section stands in its module."""

from pydantic import Field

from cv_factory.config.section import Section


class DetectorSection(Section):
    """Base of every detector's section."""

    enabled: bool = Field(True, description="false: leave this detector out")


class PredictionDetectorSection(DetectorSection):
    """Base of detectors that need no labels."""

    min_predictions: int = Field(
        100, ge=1, description="fewer predictions are not enough evidence to be silent on"
    )
