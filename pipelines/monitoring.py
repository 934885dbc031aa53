"""Pipeline ``monitoring``: predictions and labels from the field, a verdict, and its alerts."""

from uuid import UUID

from zenml import pipeline
from zenml.client import Client

from cv_factory.config.monitoring import MonitoringPipelineConfig
from steps.collect_predictions import collect_predictions
from steps.detect import detect
from steps.report import report


@pipeline(name="monitoring", enable_cache=False)
def monitoring(
    config: MonitoringPipelineConfig, model_name: str, version: int, reference_id: str | None
) -> None:
    """Compare the predictions of one version with its reference, and report."""
    reference = Client().get_artifact_version(UUID(reference_id)) if reference_id else None
    collected = collect_predictions(config.window, model_name)
    verdict = detect(collected, config, model_name, version, reference)
    report(verdict, config.report)
