"""Step ``detect``: compare a window of predictions and labels with the version's reference."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.monitoring import MonitoringPipelineConfig
from cv_factory.inference.reference import Reference
from cv_factory.monitoring.collected_predictions import CollectedPredictions
from cv_factory.monitoring.report import MonitoringReport


@step(enable_cache=False)
def detect(
    collected: CollectedPredictions,
    config: MonitoringPipelineConfig,
    model_name: str,
    version: int,
    reference: Reference | None = None,
) -> Annotated[MonitoringReport, "monitoring_report"]:
    """Run the detectors and estimators. Never cached: labels arrive late."""
    from registry.monitoring_windows import assess_window

    return assess_window(collected, config, model_name, version, reference)
